#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trainer/average.h"
#include "trainer/checkpoint.h"
#include "trainer/loss_scale.h"
#include "trainer/optimizer.h"

namespace tessera {

/// All that changes while training, and the frozen parameters: what a checkpoint holds, but for a base.
struct TrainingState {
  int64_t step = 0;                      ///< optimizer steps done
  int64_t samples = 0;                   ///< sequences consumed by them, over all ranks
  std::unique_ptr<Optimizer> optimizer;  ///< with the parameters that are trained
  std::vector<Parameter> frozen;         ///< the others
  std::vector<int64_t> stage_steps{0};   ///< optimizer steps done when each stage of adapt.stages began
  std::string base;  ///< StartModel::hash() of where the frozen ones come from; empty: they are saved too
  std::unique_ptr<LossScale> loss_scale;   ///< fp16 only
  std::unique_ptr<WeightAverage> average;  ///< train.ema only

  std::optional<double> best_score;  ///< of the evaluations so far, lower is better
  int64_t num_stale = 0;             ///< evaluations since that one

  /// Everything as named rectangles of global tensors, in the memory where it lives. `rank` of `ranks`: this
  /// one in the whole job.
  std::vector<TensorPiece> pieces(int rank, int ranks) const;
  /// The numbers, as JSON text.
  std::string numbers() const;
  /// Reads all of it back; masters are copied into the working weights. `since`: the stage since which a
  /// parameter is trained; those of a stage that the checkpoint has not seen begin without optimizer state.
  /// Errors: Error naming what the checkpoint lacks.
  void restore(const CheckpointReader& reader,
               const std::function<size_t(const std::string& parameter)>& since = {});
};

}  // namespace tessera
