#include "trainer/model_shape.h"

#include <algorithm>

#include "parallel/pipeline_balance.h"
#include "trainer/objectives/objectives.h"

namespace tessera {

ModelShape shape_of(const Recipe& recipe, int64_t vocab_size) {
  const auto whole = [&](const char* key) { return recipe.model.integer(key).value_or(0); };
  ModelShape shape;
  shape.blocks = whole("num_layers");
  shape.hidden = whole("hidden_size");
  shape.heads = whole("num_heads");
  shape.feed_forward = whole("feed_forward_size") > 0 ? whole("feed_forward_size") : 4 * shape.hidden;
  shape.vocab_size = vocab_size;
  shape.sequence = recipe.data.sequence_length;
  shape.causal = recipe.model.name() == "gpt";
  shape.predicted = shape.causal ? 1 : recipe.objective.number("mask_probability").value_or(1);
  const double most = shape.causal ? 0 : recipe.objective.number("max_predictions").value_or(0);
  if (most > 0) shape.predicted = std::min(shape.predicted, most / static_cast<double>(shape.sequence));
  if (!kind_of(recipe.objective).heads.vocabulary) shape.predicted = 0;
  shape.dense_head = recipe.model.name() == "bert";
  return shape;
}

double block_flops(const ModelShape& shape) {
  const auto h = static_cast<double>(shape.hidden), f = static_cast<double>(shape.feed_forward);
  // Products with the weights, 2 per weight; scores and their use, of which a causal mask spares half.
  return 8 * h * h + 4 * h * f + 4 * h * static_cast<double>(shape.sequence) * (shape.causal ? 0.5 : 1);
}

double head_flops(const ModelShape& shape) {
  const auto h = static_cast<double>(shape.hidden);
  return 2 * h * static_cast<double>(shape.vocab_size) + (shape.dense_head ? 2 * h * h : 0);
}

std::vector<int> cut_blocks(const ModelShape& shape, int64_t parts, bool recompute) {
  if (parts <= 1) return {0};
  BlockCosts costs;
  costs.blocks.assign(static_cast<size_t>(shape.blocks), block_flops(shape) * (recompute ? 4 : 3));
  costs.head = head_flops(shape) * 3 * shape.predicted;
  return balance_stages(costs, static_cast<int>(parts));
}

std::vector<int> first_blocks_of(const Recipe& recipe, const ModelShape& shape) {
  const auto& sizes = recipe.parallel;
  if (sizes.pipeline == 1) return {0};
  if (sizes.pipeline_split.empty()) {
    return cut_blocks(shape, sizes.pipeline * sizes.pipeline_chunks,
                      recipe.train.recompute == Recompute::blocks);
  }
  std::vector<int> first_blocks{0};
  for (const int64_t first : sizes.pipeline_split) first_blocks.push_back(static_cast<int>(first));
  return first_blocks;
}

}  // namespace tessera
