#pragma once
#include <vector>

#include "launch/plan.h"

namespace tessera {

struct SuggestOptions {
  int64_t ranks = 1, hosts = 1;
  int64_t global_batch = 1;
  double memory = 0;  ///< bytes that a rank may need
  size_t count = 6;   ///< how many layouts to name
};

struct Suggestions {
  std::vector<Forecast> best;  ///< the fastest first, each on another mesh
  int64_t considered = 0;      ///< layouts
  int64_t fitting = 0;         ///< of them, in memory
  Memory smallest;             ///< of those that need least, where none fits
};

/// Layouts of the recipe `base` comes from: sizes of the mesh, ZeRO stages, schedules, micro-batches and
/// recomputation, the latter only where it takes it to fit.
Suggestions suggest_layouts(const ModelFacts& facts, const Layout& base, const MachineFigures& machine,
                            const SuggestOptions& options);

/// What to add to the command line so that a recipe of layout `base` becomes `layout`: "parallel.tensor=2 …".
std::vector<std::string> overrides_of(const Layout& base, const Layout& layout);

}  // namespace tessera
