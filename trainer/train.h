#pragma once
#include <functional>

#include "parallel/world.h"
#include "recipes/recipe.h"

namespace tessera {

/// How a run ended.
struct Ending {
  int64_t step = 0;      ///< optimizer steps done, all of them saved
  int signal = 0;        ///< the signal that ended it early, or 0
  bool goes_on = false;  ///< another stage of `adapt` follows
};

class Table;

/// What the program around a run adds to it.
struct TrainHooks {
  /// The signal that asked this process to stop, or 0: read once a step, and any rank's wish stops all.
  std::function<int()> stop_signal;
  /// Adds rows to rank 0's start-up table, of the recipe with what its data said. May be empty.
  std::function<void(const Recipe& recipe, int64_t vocab_size, Table& table)> plan = {};
};

/// Trains, or resumes, what the recipe describes, on all ranks of the world. Rank 0 writes to standard output
/// and into the run folder. Errors: Error for everything that the user can mend (data, checkpoint,
/// divergence, full disk), the same on all ranks where it concerns all.
Ending train(const Recipe& recipe, World& world, const TrainHooks& hooks);

}  // namespace tessera
