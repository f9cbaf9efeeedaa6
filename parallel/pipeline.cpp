#include "parallel/pipeline.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/Event.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <chrono>
#include <stdexcept>

namespace tessera {
namespace {
// Whether there are backwards in the table.
bool trains(const PipelineTable& table) {
  bool backward = false;
  for (const auto& actions : table.stages) {
    for (const PipelineAction& action : actions) {
      backward |= action.phase == Phase::backward;
      if (action.phase == Phase::forward || action.phase == Phase::backward) continue;
      throw std::logic_error("backward in two pieces can be drawn and simulated, not executed");
    }
  }
  return backward;
}

// Per part: whether its output depends on anything that requires a gradient.
std::vector<bool> reach_of_gradients(const std::vector<bool>& needs_gradient, int num_parts) {
  if (needs_gradient.empty()) return std::vector<bool>(num_parts, true);
  if (static_cast<int>(needs_gradient.size()) != num_parts) {
    throw std::logic_error(
        fmt::format("{} flags needs_gradient for a pipeline of {} parts", needs_gradient.size(), num_parts));
  }
  std::vector<bool> reaches = needs_gradient;
  for (int part = 1; part < num_parts; ++part) reaches[part] = reaches[part] || reaches[part - 1];
  return reaches;
}
}  // namespace

/// Divides a run into time computed and waited: by events in the GPU's stream, which the host runs ahead of.
class Pipeline::Clock {
 public:
  explicit Clock(at::Device device) : guard_(device.type()), device_(device) {}

  void start() {
    sums_ = {};
    laps_.clear();
    if (device_.is_cpu()) {
      last_ = std::chrono::steady_clock::now();
    } else {
      record(nullptr);
    }
  }
  /// The time since the last lap belongs to this sum.
  void lap(double PipelineSeconds::*sum) {
    if (!device_.is_cpu()) return record(sum);
    const auto now = std::chrono::steady_clock::now();
    sums_.*sum += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }
  PipelineSeconds seconds() const {
    PipelineSeconds sums = sums_;
    if (!laps_.empty()) laps_.back().event.synchronize();
    for (size_t i = 1; i < laps_.size(); ++i) {
      sums.*laps_[i].sum += laps_[i - 1].event.elapsedTime(laps_[i].event) * 1e-3;
    }
    return sums;
  }

 private:
  struct Lap {
    c10::Event event;
    double PipelineSeconds::*sum;
  };
  void record(double PipelineSeconds::*sum) {
    laps_.push_back({c10::Event(device_.type(), c10::EventFlag::BACKEND_DEFAULT), sum});
    laps_.back().event.record(guard_.getStream(device_));
  }

  c10::impl::VirtualGuardImpl guard_;
  at::Device device_;
  PipelineSeconds sums_;
  std::chrono::steady_clock::time_point last_;
  std::vector<Lap> laps_;
};

/// One run.
class Pipeline::Step {
 public:
  Step(const Pipeline& pipeline, const PipelineTable& table, at::IntArrayRef hidden_shape,
       const PipelineCallbacks& callbacks)
      : table_(table),
        hidden_shape_(hidden_shape),
        hidden_(pipeline.options_.hidden),
        callbacks_(callbacks),
        stage_(pipeline.links_.stage()),
        trains_(trains(table)),
        reaches_(reach_of_gradients(pipeline.options_.needs_gradient, table.sizes.parts())),
        mail_(pipeline.links_, table, reaches_),
        num_backwards_(table.sizes.chunks, 0) {
    if (stage_ + 1 == table.sizes.stages) results_.resize(table.sizes.micro_batches);
  }

  std::vector<at::Tensor> run(Clock& clock) {
    const auto& actions = table_.stages[stage_];
    for (size_t i = 0; i < actions.size(); ++i) {
      for (size_t ahead = i; ahead < std::min(i + 2, actions.size()); ++ahead) {
        mail_.post(actions[ahead], hidden_shape_, hidden_);
      }
      const at::Tensor received = mail_.take(actions[i]);
      clock.lap(&PipelineSeconds::waited);
      if (actions[i].phase == Phase::forward) {
        forward(actions[i], received);
      } else {
        backward(actions[i], received);
      }
      clock.lap(&PipelineSeconds::computed);
    }
    mail_.finish();
    clock.lap(&PipelineSeconds::waited);
    return std::move(results_);
  }

 private:
  struct Activations {
    at::Tensor input;
    at::Tensor output;
  };

  void forward(const PipelineAction& action, const at::Tensor& input) {
    const int part = table_.part(stage_, action);
    const bool differentiable = trains_ && reaches_[part];
    if (part > 0 && trains_ && reaches_[part - 1]) input.set_requires_grad(true);
    at::Tensor output;
    {
      const at::AutoGradMode mode(differentiable);
      output = callbacks_.forward(action.chunk, action.micro_batch, input);
    }
    check_output(part, output, differentiable);
    if (differentiable) activations_[{action.chunk, action.micro_batch}] = {input, output};
    if (part + 1 == table_.sizes.parts()) {
      results_[action.micro_batch] = output.detach();
    } else {
      mail_.send(in_part(part + 1, action), output.detach());
    }
  }

  void backward(const PipelineAction& action, const at::Tensor& received) {
    const int part = table_.part(stage_, action);
    if (!reaches_[part]) return;
    const bool last = ++num_backwards_[action.chunk] == table_.sizes.micro_batches;
    if (callbacks_.begin_backward) callbacks_.begin_backward(action.chunk, action.micro_batch, last);
    // Taken out first: its graph is freed with it at the end of this function.
    const Activations kept = activations_.extract({action.chunk, action.micro_batch}).mapped();
    if (received.defined()) {
      torch::autograd::backward({kept.output}, {received});
    } else {
      torch::autograd::backward({kept.output});
    }
    if (part == 0 || !reaches_[part - 1]) return;
    const at::Tensor& gradient = kept.input.grad();
    // Undefined where the output does not depend on the input: the part before waits all the same.
    mail_.send(in_part(part - 1, action), gradient.defined() ? gradient : at::zeros_like(kept.input));
  }

  PipelineAction in_part(int part, const PipelineAction& action) const {
    return {action.phase, part / table_.sizes.stages, action.micro_batch};
  }

  void check_output(int part, const at::Tensor& output, bool differentiable) const {
    const auto require = [part](bool holds, const std::string& what) {
      if (!holds) throw std::logic_error(fmt::format("part {} of the pipeline {}", part, what));
    };
    require(output.defined(), "returns nothing");
    require(!differentiable || output.requires_grad(),
            "needs a gradient by its flag, but its output requires none");
    if (part + 1 == table_.sizes.parts()) return;
    require(
        output.sizes() == hidden_shape_ && output.scalar_type() == c10::typeMetaToScalarType(hidden_.dtype()),
        fmt::format("returns {} {}, not hidden states as announced: {} {}",
                    c10::toString(output.scalar_type()), c10::str(output.sizes()),
                    c10::toString(c10::typeMetaToScalarType(hidden_.dtype())), c10::str(hidden_shape_)));
  }

  const PipelineTable& table_;
  at::IntArrayRef hidden_shape_;
  at::TensorOptions hidden_;
  const PipelineCallbacks& callbacks_;
  int stage_;
  bool trains_;
  std::vector<bool> reaches_;
  PipelineMail mail_;
  std::vector<int> num_backwards_;                          // so far, per chunk
  std::map<std::pair<int, int>, Activations> activations_;  // by (chunk, micro-batch), until their backward
  std::vector<at::Tensor> results_;                         // of the last part
};

Pipeline::Pipeline(const Communicator& axis, PipelineOptions options)
    : options_(std::move(options)), links_(axis), clock_(std::make_unique<Clock>(options_.hidden.device())) {}
Pipeline::~Pipeline() = default;

std::vector<at::Tensor> Pipeline::run(const PipelineTable& table, at::IntArrayRef hidden_shape,
                                      const PipelineCallbacks& callbacks) {
  if (table.sizes.stages != links_.num_stages()) {
    throw std::logic_error(
        fmt::format("a table of {} stages for a pipeline of {}", table.sizes.stages, links_.num_stages()));
  }
  clock_->start();
  return Step(*this, table, hidden_shape, callbacks).run(*clock_);
}

PipelineSeconds Pipeline::seconds() const { return clock_->seconds(); }

}  // namespace tessera
