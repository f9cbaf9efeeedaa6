#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

#include "parallel/pipeline_links.h"
#include "parallel/pipeline_schedule.h"

namespace tessera {

struct PipelineOptions {
  at::TensorOptions hidden;  ///< type and device of what parts hand on
  /// Per part of the model, the same on all ranks: whether it holds anything that requires a gradient. No
  /// gradient goes back to a part where neither it nor a part before it does. Empty: all do.
  std::vector<bool> needs_gradient = {};
};

/// What a stage computes. Both run on the thread that calls run().
struct PipelineCallbacks {
  /// The hidden states that the chunk makes of `input` (undefined for the model's first part), or, from the
  /// last part, the differentiable 0-dim loss.
  std::function<at::Tensor(int chunk, int micro_batch, const at::Tensor& input)> forward;
  /// Before a backward; `last`: the chunk's gradients are whole after it, and may be reduced as they appear.
  /// May be empty. Not called for chunks that no gradient reaches.
  std::function<void(int chunk, int micro_batch, bool last)> begin_backward;
};

/// Of one run, by the clock of the device. A stage's bubble is 1 - computed / (the largest computed + waited
/// of all stages): after its last action a stage does not wait here, but for the optimizer's first
/// collective.
struct PipelineSeconds {
  double computed = 0;
  double waited = 0;  ///< for messages of other stages, and for one's own to be taken
};

/// Carries out tables of pipeline_schedule.h: this rank's actions in order. The input of the next action is
/// received and results are sent beside the computation; between parts on one rank nothing is sent.
/// Parameters' gradients accumulate in grad(), as autograd has it. A rank that throws leaves the others
/// waiting.
class Pipeline {
 public:
  /// Called by all ranks along the pipeline axis; its ranks are the stages.
  explicit Pipeline(const Communicator& axis, PipelineOptions options = {});
  ~Pipeline();
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  /// One step, with hidden states of `hidden_shape` for every micro-batch. All stages pass the same table;
  /// without backwards in it nothing is kept for them. Returns, on the last stage, what the last part
  /// returned for each micro-batch, detached; elsewhere nothing. Throws std::logic_error where shape, type or
  /// the need of a gradient are not as announced, or backwards are split.
  std::vector<at::Tensor> run(const PipelineTable& table, at::IntArrayRef hidden_shape,
                              const PipelineCallbacks& callbacks);

  /// Of the last run. Waits for a GPU to end it.
  PipelineSeconds seconds() const;

 private:
  class Step;
  class Clock;
  PipelineOptions options_;
  PipelineLinks links_;
  std::unique_ptr<Clock> clock_;
};

}  // namespace tessera
