#pragma once
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "trainer/kernels/cpu/blocks.h"
#include "trainer/kernels/kernels.h"
#include "trainer/parameters.h"

namespace tessera {

/// Steps float32 masters and refreshes the working copies, in one pass over memory where masters are on the
/// CPU (whatever the model is on) or the device has a kernel for this optimizer, else in ATen's fused ones.
/// Its state is, per slot ("exp_avg"), one float32 tensor per parameter at the parameter's shape. An
/// optimizer is a class that names its slots and updates one block of one parameter.
class Optimizer {
 public:
  Optimizer(std::vector<Parameter> parameters, std::vector<std::string> slots, double learning_rate);
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  /// `learning_rate`: base rate times schedule. `gradients`: one per parameter, contiguous, float32 or of the
  /// working type; undefined = leave this parameter alone. `gradient_scale`: 0-dim float32 that multiplies
  /// all gradients (GradientScale::factor), undefined = 1; where it is not finite nothing changes, not even
  /// the count of steps.
  void step(double learning_rate, const std::vector<at::Tensor>& gradients,
            const at::Tensor& gradient_scale = {});

  const std::vector<Parameter>& parameters() const { return parameters_; }
  /// The recipe's, which the schedule multiplies.
  double base_learning_rate() const { return base_learning_rate_; }

  /// Live tensors under "slot/parameter": read them to save, write into them to load.
  std::vector<TensorPiece> state() const;
  /// Steps really taken. Waits for the device.
  int64_t num_steps() const;
  void set_num_steps(int64_t steps);
  /// Steps taken before a parameter's first, by its place in parameters(): it was frozen until then.
  void set_first_steps(std::vector<int64_t> steps);

  /// For comparison: steps with these kernels, whatever the device, or with ATen's where they have none for
  /// this optimizer.
  void use_kernels(const Kernels& kernels) { kernels_ = &kernels; }
  void use_aten(bool use);

 protected:
  /// One block of one parameter: `slots` in the order of their names, `gradient` already scaled; all hold
  /// `values.size()`.
  struct Block {
    const Parameter& parameter;
    double learning_rate;  ///< the parameter's own
    size_t age;            ///< which of begin_step()'s counts is the parameter's
    std::span<float> values;
    const float* gradient;
    float* const* slots;
  };
  /// A whole step: of all parameters that have a gradient, and of the count.
  struct Fused {
    const Kernels& kernels;
    double learning_rate;
    const std::vector<at::Tensor>& gradients;
    const at::Tensor& gradient_scale;
    const std::vector<std::vector<at::Tensor>>& slots;  ///< [slot][parameter]
    const std::vector<size_t>& ages;
    const at::Tensor& steps;        ///< 0-dim float32
    const at::Tensor& first_steps;  ///< [ages] float32
  };
  /// Parameters that share their rates, for kernels that take lists; gradients are float32.
  struct Batch {
    double learning_rate;
    double weight_decay_scale;
    std::vector<at::Tensor> masters;
    std::vector<at::Tensor> gradients;
    std::vector<std::vector<at::Tensor>> slots;
    std::vector<at::Tensor> steps;  ///< the count of steps, this one included, once per parameter
    at::Tensor inverse_scale;       ///< gradients are to be divided by this
    at::Tensor skip;                ///< 1 where nothing may change
  };
  /// Called before the blocks of a step on the CPU, with the counts of steps that parameters have then taken,
  /// from 1: one for all, unless some began late.
  virtual void begin_step(const std::vector<int64_t>& steps) {}
  virtual void update(const Block& block) const = 0;
  /// False: these kernels have none for this optimizer, and nothing was done.
  virtual bool update_fused(const Fused& step) const { return false; }
  virtual void update_aten(Batch& batch) const = 0;

 private:
  std::vector<int64_t> ages_now() const;
  void step_blocks(double learning_rate, const std::vector<at::Tensor>& gradients, float scale);
  std::vector<at::Tensor> bring_gradients(const std::vector<at::Tensor>& gradients);
  void send_working() const;
  void step_aten(double learning_rate, const std::vector<at::Tensor>& gradients,
                 const at::Tensor& gradient_scale);
  void update_span(const blocks::Span& span, double learning_rate, const at::Tensor& gradient, float scale);

  std::vector<Parameter> parameters_;
  std::vector<std::string> slot_names_;
  double base_learning_rate_;
  std::vector<std::vector<at::Tensor>> slots_;  // [slot][parameter]
  std::vector<at::Tensor> stores_;  // where working copies are written, if there are any and the CPU steps
  std::vector<at::Tensor> host_gradients_;  // of gradients on a device whose masters are on the host
  at::Tensor steps_;          // 0-dim float32 with the masters: a skipped step is known only on their device
  at::Tensor first_steps_;    // [ages] float32 with the masters: different ones
  std::vector<size_t> ages_;  // which of them is each parameter's
  const Kernels* kernels_;    // null: blocks on the CPU
};

}  // namespace tessera
