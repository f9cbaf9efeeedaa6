#include "trainer/optimizers/adamw.h"

#include <torch/torch.h>

#include <cmath>

#include "trainer/kernels/cpu/loops.h"

namespace tessera {

Adamw::Adamw(std::vector<Parameter> parameters, const AdamwOptions& options)
    : Optimizer(std::move(parameters), {"exp_avg", "exp_avg_sq"}, options.learning_rate), options_(options) {}

void Adamw::begin_step(const std::vector<int64_t>& steps) {
  corrections_.assign(steps.size(), {});
  if (!options_.bias_correction) return;
  for (size_t i = 0; i < steps.size(); ++i) {
    const auto step = static_cast<double>(steps[i]);
    corrections_[i] = {1 - std::pow(options_.beta1, step), std::sqrt(1 - std::pow(options_.beta2, step))};
  }
}

void Adamw::update(const Block& block) const {
  const double decay = options_.weight_decay * block.parameter.weight_decay_scale;
  const Correction& correction = corrections_[block.age];
  const loops::AdamwConstants constants{
      .keep = static_cast<float>(1 - block.learning_rate * decay),
      .weight1 = static_cast<float>(1 - options_.beta1),
      .beta2 = static_cast<float>(options_.beta2),
      .weight2 = static_cast<float>(1 - options_.beta2),
      .root = static_cast<float>(correction.second_root),
      .epsilon = static_cast<float>(options_.epsilon),
      .step_size = static_cast<float>(block.learning_rate / correction.first)};
  loops::adamw(block.values.data(), block.slots[0], block.slots[1], block.gradient,
               static_cast<int64_t>(block.values.size()), constants);
}

bool Adamw::update_fused(const Fused& step) const {
  if (!step.kernels.adamw) return false;
  std::vector<AdamwTensors> tensors;
  for (size_t i = 0; i < parameters().size(); ++i) {
    if (!step.gradients[i].defined()) continue;
    const Parameter& parameter = parameters()[i];
    tensors.push_back({.gradient = step.gradients[i],
                       .master = parameter.master,
                       .average = step.slots[0][i],
                       .square = step.slots[1][i],
                       .working = parameter.has_copy() ? parameter.working : at::Tensor(),
                       .learning_rate_scale = parameter.learning_rate_scale,
                       .weight_decay = options_.weight_decay * parameter.weight_decay_scale,
                       .age = static_cast<int64_t>(step.ages[i])});
  }
  step.kernels.adamw(tensors, {.learning_rate = step.learning_rate,
                               .beta1 = options_.beta1,
                               .beta2 = options_.beta2,
                               .epsilon = options_.epsilon,
                               .bias_correction = options_.bias_correction,
                               .gradient_scale = step.gradient_scale,
                               .steps = step.steps,
                               .first_steps = step.first_steps});
  return true;
}

void Adamw::update_aten(Batch& batch) const {
  // The kernel always corrects the bias; after very many steps its correction is exactly 1.
  if (!options_.bias_correction)
    batch.steps.assign(batch.steps.size(), torch::full_like(batch.steps.front(), 1e9));
  at::_fused_adamw_(batch.masters, batch.gradients, batch.slots[0], batch.slots[1], {}, batch.steps,
                    batch.learning_rate, options_.beta1, options_.beta2,
                    options_.weight_decay * batch.weight_decay_scale, options_.epsilon, /*amsgrad=*/false,
                    /*maximize=*/false, batch.inverse_scale, batch.skip);
}

}  // namespace tessera
