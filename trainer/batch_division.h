#pragma once
#include <functional>

#include "trainer/batch.h"

namespace tessera {

/// How the positions of samples are divided among ranks.
struct BatchDivision {
  int64_t multiple = 1;  ///< the columns of a batch are filled up to a multiple of this
  int64_t columns = 0;   ///< and at least to this many
  /// This rank's positions out of `columns`; empty: all of them.
  std::function<std::vector<int64_t>(int64_t columns)> positions = {};
};

/// The part of a collated batch (on the CPU) that falls to this rank: its columns, and the labels in them.
/// The attention mask keeps all columns; whole samples are packed. Sums over the ranks are those of the whole
/// batch.
Batch divide(Batch batch, const BatchDivision& division);

}  // namespace tessera
