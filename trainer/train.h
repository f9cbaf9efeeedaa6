#pragma once
#include <functional>

#include "parallel/world.h"
#include "recipes/recipe.h"

namespace tessera {

/// How a run ended.
struct Ending {
  int64_t step = 0;  ///< optimizer steps done, all of them saved
  int signal = 0;    ///< the signal that ended it early, or 0
};

/// Trains, or resumes, what the recipe describes, on all ranks of the world. `stop_signal` gives the signal
/// that asked this process to stop, or 0; it is read once a step, and any rank's wish stops all. Rank 0
/// writes to standard output and into the run folder. Errors: Error for everything that the user can mend
/// (data, checkpoint, divergence, full disk), the same on all ranks where it concerns all.
Ending train(const Recipe& recipe, World& world, const std::function<int()>& stop_signal);

}  // namespace tessera
