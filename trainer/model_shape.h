#pragma once
#include <cstdint>
#include <vector>

#include "recipes/recipe.h"

namespace tessera {

/// What a model's work depends on, known before it is built.
struct ModelShape {
  int64_t blocks = 0, hidden = 0, heads = 0, feed_forward = 0;
  int64_t vocab_size = 0;
  int64_t sequence = 0;
  double predicted = 1;     ///< share of positions that are predicted; 1: all, where no rows are picked
  bool causal = false;      ///< attention sees what is before only
  bool dense_head = false;  ///< a dense layer and a norm before the logits
};
ModelShape shape_of(const Recipe& recipe, int64_t vocab_size);

/// Forward's floating-point operations per position: of a block, and of the head on a predicted one.
double block_flops(const ModelShape& shape);
double head_flops(const ModelShape& shape);

/// Where the blocks are cut into parts such that the dearest is as cheap as can be: each part's first block.
std::vector<int> cut_blocks(const ModelShape& shape, int64_t parts, bool recompute);
/// As the recipe's parallel.pipeline_split says, or cut_blocks(). The recipe's checks have passed.
std::vector<int> first_blocks_of(const Recipe& recipe, const ModelShape& shape);

}  // namespace tessera
