#include "trainer/blocks/context.h"

#include <cmath>

#include "recipes/random.h"

namespace tessera {

DropoutSite Context::dropout_site(uint64_t site, double probability) const {
  DropoutSite result;
  if (!dropout.enabled || probability <= 0) return result;
  result.key = mix(mix(dropout.seed, static_cast<uint64_t>(dropout.step)), site);
  result.threshold = static_cast<uint32_t>(std::lround(probability * 65536));
  result.samples = samples;
  result.sequence = sequence;
  result.first_position = first_position;
  return result;
}

}  // namespace tessera
