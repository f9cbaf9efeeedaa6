#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace tessera {

struct NamedParameter {
  std::string name;
  at::Tensor tensor;
};

/// Messages of one kind that a strategy sends in every step (of one unit or bucket), as they went in the last
/// one.
struct MessageStatistics {
  int64_t bytes = 0;    ///< the whole tensors', all messages of the step together
  double seconds = 0;   ///< from their start to their end
  double exposed = 0;   ///< of these, those that the host waited for; on a GPU it hardly ever waits
  bool gather = false;  ///< of parameters; otherwise a sum of gradients
};

/// How the ranks that see different samples keep one model: what happens to gradients and parameters around a
/// step. A step: begin_step(); per micro-step begin_micro_step(last), forward, backward, end_micro_step();
/// gradients = finish(); the optimizer; parameters_changed().
class Strategy {
 public:
  Strategy() = default;
  virtual ~Strategy() = default;
  Strategy(const Strategy&) = delete;
  Strategy& operator=(const Strategy&) = delete;

  virtual void begin_step() = 0;  ///< forgets all gradients
  /// Which of a pipeline stage's parts the next micro-step is about.
  virtual void select_chunk(int chunk) {}
  /// Before forward, or in a pipeline before backward; `last`: of its chunk in this step.
  virtual void begin_micro_step(bool last) = 0;
  virtual void end_micro_step() {}  ///< after backward
  /// The sums over micro-steps and ranks, one per parameter or part of one that this rank steps, in its
  /// order; undefined where no rank had a gradient. Valid until the next begin_step().
  virtual std::vector<at::Tensor> finish() = 0;
  /// Before what this rank steps changes otherwise than between finish() and parameters_changed(): no message
  /// reads it any more.
  virtual void settle() {}
  /// What this rank steps has new values.
  virtual void parameters_changed() {}
  /// All parameters have new values, frozen ones too, as from a checkpoint; nothing needs telling at the
  /// start.
  virtual void parameters_loaded() { parameters_changed(); }

  /// Called with the hidden states before and after a unit (a block: its number + 1), which they return; a
  /// strategy brings the unit's parameters in time, and takes them away.
  virtual at::Tensor enter(size_t /*unit*/, const at::Tensor& hidden) { return hidden; }
  virtual at::Tensor leave(size_t /*unit*/, const at::Tensor& hidden) { return hidden; }

  virtual std::vector<MessageStatistics> statistics() const = 0;
};

}  // namespace tessera
