#include "trainer/blocks/context.h"

#include <ATen/ATen.h>

#include <cmath>

#include "parallel/embedding_rows.h"
#include "recipes/random.h"

namespace tessera {

at::Tensor Context::own_columns(const at::Tensor& per_token) const {
  if (!split) return per_token;
  const int64_t first = split->first_of(per_token.size(1));
  return per_token.slice(1, first, first + sequence);
}

at::Tensor Context::position_rows(const at::Tensor& table) const {
  if (!positions.defined()) return table.slice(0, first_position, first_position + sequence);
  return embedding_rows(table, positions.clamp_max(table.size(0) - 1));  // padding may lie beyond the table
}

DropoutSite Context::dropout_site(uint64_t site, double probability) const {
  DropoutSite result;
  if (!dropout.enabled || probability <= 0) return result;
  result.key = mix(mix(dropout.seed, static_cast<uint64_t>(dropout.step)), site);
  result.threshold = static_cast<uint32_t>(std::lround(probability * 65536));
  result.samples = samples;
  result.sequence = sequence;
  result.first_position = first_position;
  result.positions = positions;
  return result;
}

DropoutSite Context::dropout_site_inside(uint64_t site, double probability, int64_t columns) const {
  DropoutSite result = dropout_site(site, probability);
  if (!split) return result;
  result.sequence = sequence_inside();
  result.positions = positions_inside;
  result.first_group = static_cast<uint32_t>(split->first_of(columns * split->size()) / 8);
  return result;
}

}  // namespace tessera
