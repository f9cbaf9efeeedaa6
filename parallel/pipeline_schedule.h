#pragma once
#include <optional>
#include <string>
#include <vector>

#include "recipes/parallel_kinds.h"

/// Pipeline parallelism as data: what every stage computes, in order. No torch, no ranks.
namespace tessera {

/// A model is cut into stages * chunks parts, one after the other; chunk c of stage s is part c * stages + s.
struct PipelineSizes {
  int stages = 1;
  int chunks = 1;  ///< parts per stage
  int micro_batches = 1;
  int parts() const { return stages * chunks; }
};

/// Backward in one piece, or (zero bubble) the gradient of the input first and those of the weights later.
enum class Phase { forward, backward, input_gradient, weight_gradient };

struct PipelineAction {
  Phase phase = Phase::forward;
  int chunk = 0;
  int micro_batch = 0;
  bool operator==(const PipelineAction&) const = default;
};

struct PipelineTable {
  PipelineSizes sizes;
  std::vector<std::vector<PipelineAction>> stages;  ///< each stage's actions, in order
  int part(int stage, const PipelineAction& action) const { return action.chunk * sizes.stages + stage; }
};

/// one_f_one_b: few live activations (Narayanan et al. 2019, "PipeDream"; the flushing variant of 2021);
/// interleaved: several chunks per stage and a smaller bubble (Narayanan et al. 2021, "Efficient large-scale
/// language model training on GPU clusters using Megatron-LM"); gpipe: all forwards, then all backwards
/// (Huang et al. 2019), with several chunks breadth first (Lamy-Poirier 2023). Throws Error where sizes are
/// below 1, one_f_one_b has several chunks, or interleaved a number of micro-batches that the stages do not
/// divide.
PipelineTable make_pipeline_table(PipelineSchedule kind, const PipelineSizes& sizes);

/// ZB-H1 (Qi et al. 2023, "Zero bubble pipeline parallelism"): one chunk per stage, split backwards; the
/// weights' gradients fill the bubble. `sizes.chunks` must be 1 (Error).
PipelineTable make_zero_bubble_table(const PipelineSizes& sizes);

/// For evaluation: forwards only.
PipelineTable make_forward_table(const PipelineSizes& sizes);

/// What another action hands over to this one: the previous part's output, or the next part's gradient.
struct PipelineInput {
  int stage;
  PipelineAction action;
};
/// Nothing for the first part's forward, the last part's backward and gradients of weights.
std::optional<PipelineInput> input_of(const PipelineTable& table, int stage, const PipelineAction& action);

/// The actions of `sender` whose results go to other actions of phase `phase` on `receiver`, in the order in
/// which they are computed, as those receiving actions. Both ends of a link derive the order of its messages
/// from it.
std::vector<PipelineAction> link_messages(const PipelineTable& table, int sender, int receiver, Phase phase);

/// Any unit; one part's action on one micro-batch.
struct PipelineTimes {
  double forward = 1;
  double backward = 2;
  double message = 0;  ///< between two stages
  double input_gradient = 1;
  double weight_gradient = 1;
};

struct PipelineForecast {
  std::string deadlock;  ///< which stages wait for what; empty: the table runs to its end
  double makespan = 0;
  std::vector<double> bubble;  ///< per stage: the share of the makespan in which it idles
  std::vector<int> peak_live;  ///< per stage: most (chunk, micro-batch) between forward and backward
  std::vector<std::vector<double>> starts;  ///< per stage and action
};

/// Carries the table out as the executor does: sends go on beside the computation, an action waits for its
/// input.
PipelineForecast simulate(const PipelineTable& table, const PipelineTimes& times = {});

/// A drawing: a row per stage, a column per time slot, every action one slot. "F3" is the forward of
/// micro-batch 3, "B3" its backward, "I3" and "W3" the gradients of input and weights; chunks are letters:
/// "F3b". Throws std::logic_error on a table that deadlocks.
std::string draw(const PipelineTable& table);

}  // namespace tessera
