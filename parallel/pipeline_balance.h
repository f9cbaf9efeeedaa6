#pragma once
#include <vector>

namespace tessera {

/// What a forward and a backward of each part of a model cost, in any unit.
struct BlockCosts {
  std::vector<double> blocks;
  double embedding = 0;  ///< computed with the first block
  double head = 0;       ///< with the last one, the loss included
};

/// Cuts the blocks into `num_parts` runs of at least one block: the first block of each, so that the dearest
/// part, which sets a pipeline's pace, is as cheap as can be, and the others as even as that allows. Throws
/// Error where there are fewer blocks than parts.
std::vector<int> balance_stages(const BlockCosts& costs, int num_parts);

/// The cost of each part that starts at `first_blocks`.
std::vector<double> part_costs(const BlockCosts& costs, const std::vector<int>& first_blocks);

}  // namespace tessera
