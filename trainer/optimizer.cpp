#include "trainer/optimizer.h"

#include <torch/torch.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <set>

#include "parallel/pinned_memory.h"

namespace tessera {

Optimizer::Optimizer(std::vector<Parameter> parameters, std::vector<std::string> slots, double learning_rate)
    : parameters_(std::move(parameters)), slot_names_(std::move(slots)), base_learning_rate_(learning_rate) {
  const torch::NoGradGuard no_grad;
  at::TensorOptions options = at::kFloat;
  for (const auto& slot : slot_names_) {
    auto& tensors = slots_.emplace_back();
    for (const auto& parameter : parameters_) {
      TORCH_CHECK(parameter.master.scalar_type() == at::kFloat && parameter.master.is_contiguous(), slot,
                  " of ", parameter.name, ": masters are contiguous float32");
      tensors.push_back(at::zeros(parameter.master.sizes(), parameter.master.options().requires_grad(false)));
    }
  }
  if (!parameters_.empty()) options = options.device(parameters_.front().master.device());
  steps_ = at::zeros({}, options);
  first_steps_ = at::zeros({1}, options);
  use_aten(false);
  host_gradients_.resize(parameters_.size());
  ages_.resize(parameters_.size());
  for (const auto& parameter : parameters_) {
    at::Tensor& store = stores_.emplace_back();
    if (!parameter.has_copy() || !parameter.master.is_cpu()) continue;
    const at::Tensor working = parameter.working.detach();
    if (working.is_cpu()) {
      store = working;
    } else if (working.scalar_type() == at::kFloat) {
      store = parameter.master;
    } else {
      store = host_empty(working.sizes(), working.scalar_type(), working.device());
    }
  }
}

void Optimizer::use_aten(bool use) {
  kernels_ = use ? &generic_kernels() : steps_.is_cpu() ? nullptr : &kernels_for(steps_);
}

/// From a device to the masters, beside each other; step() waits for all of them.
std::vector<at::Tensor> Optimizer::bring_gradients(const std::vector<at::Tensor>& gradients) {
  std::vector<at::Tensor> here = gradients;
  for (size_t i = 0; i < here.size(); ++i) {
    if (!here[i].defined() || here[i].is_cpu()) continue;
    at::Tensor& host = host_gradients_[i];
    if (!host.defined()) {
      host = host_empty(here[i].sizes(), here[i].scalar_type(), here[i].device());
    }
    here[i] = host.copy_(here[i], /*non_blocking=*/true);
  }
  return here;
}

/// To the device of the model. Masters change again only after its next gradients have come from there.
void Optimizer::send_working() const {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const at::Tensor working = parameters_[i].working.detach();
    if (!working.is_cpu()) working.copy_(stores_[i], /*non_blocking=*/true);
  }
}

void Optimizer::step(double learning_rate, const std::vector<at::Tensor>& gradients,
                     const at::Tensor& gradient_scale) {
  const torch::NoGradGuard no_grad;
  TORCH_INTERNAL_ASSERT(gradients.size() == parameters_.size());
  if (kernels_) {
    if (update_fused(
            {*kernels_, learning_rate, gradients, gradient_scale, slots_, ages_, steps_, first_steps_}))
      return;
    return step_aten(learning_rate, gradients, gradient_scale);
  }
  const std::vector<at::Tensor> here = bring_gradients(gradients);
  // Reading the scale back waits for the copies too.
  const float scale = gradient_scale.defined() ? gradient_scale.item<float>() : 1.0F;
  if (!std::isfinite(scale)) return;
  step_blocks(learning_rate, here, scale);
  send_working();
}

void Optimizer::step_blocks(double learning_rate, const std::vector<at::Tensor>& gradients, float scale) {
  steps_.add_(1);
  begin_step(ages_now());
  std::vector<int64_t> sizes;
  for (const auto& gradient : gradients) {
    TORCH_INTERNAL_ASSERT(!gradient.defined() || gradient.is_contiguous());
    sizes.push_back(gradient.defined() ? gradient.numel() : 0);
  }
  blocks::for_each_span(blocks::make_spans(sizes), [&](const blocks::Span& span, int64_t) {
    update_span(span, learning_rate, gradients[static_cast<size_t>(span.tensor)], scale);
  });
}

void Optimizer::update_span(const blocks::Span& span, double learning_rate, const at::Tensor& gradient,
                            float scale) {
  const auto index = static_cast<size_t>(span.tensor);
  const Parameter& parameter = parameters_[index];
  const auto gradient_size = static_cast<int64_t>(gradient.element_size());
  const at::Tensor& store = stores_[index];
  const bool has_copy = store.defined() && !store.is_same(parameter.master);
  const auto* source = static_cast<const char*>(gradient.const_data_ptr());
  auto* working = has_copy ? static_cast<char*>(store.data_ptr()) : nullptr;
  float values[blocks::block_size];
  std::array<float*, 4> slots{};
  for (int64_t done = 0; done < span.count; done += blocks::block_size) {
    const int64_t count = std::min(blocks::block_size, span.count - done);
    const int64_t offset = span.offset + done;
    blocks::load(source + offset * gradient_size, gradient.scalar_type(), values, count, scale);
    for (size_t slot = 0; slot < slots_.size(); ++slot)
      slots[slot] = slots_[slot][index].data_ptr<float>() + offset;
    float* const master = parameter.master.data_ptr<float>() + offset;
    update({parameter,
            learning_rate * parameter.learning_rate_scale,
            ages_[index],
            {master, static_cast<size_t>(count)},
            values,
            slots.data()});
    if (has_copy) blocks::store(master, working + offset * store.element_size(), store.scalar_type(), count);
  }
}

void Optimizer::step_aten(double learning_rate, const std::vector<at::Tensor>& gradients,
                          const at::Tensor& gradient_scale) {
  const at::Tensor scale = gradient_scale.defined() ? gradient_scale : at::ones({}, steps_.options());
  const at::Tensor finite = at::isfinite(scale).to(at::kFloat);
  steps_.add_(finite);
  const std::vector<at::Tensor> steps = (steps_ - first_steps_).unbind();
  std::map<std::pair<double, double>, Batch> batches;
  std::vector<at::Tensor> masters;
  std::vector<at::Tensor> copies;
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (!gradients[i].defined()) continue;
    const auto& parameter = parameters_[i];
    auto& batch = batches[{parameter.learning_rate_scale, parameter.weight_decay_scale}];
    batch.slots.resize(slots_.size());
    batch.masters.push_back(parameter.master);
    batch.gradients.push_back(gradients[i].to(at::kFloat));
    for (size_t slot = 0; slot < slots_.size(); ++slot) batch.slots[slot].push_back(slots_[slot][i]);
    batch.steps.push_back(steps[ages_[i]]);
    if (!parameter.has_copy()) continue;
    masters.push_back(parameter.master);
    copies.push_back(parameter.working.detach());
  }
  for (auto& [rates, batch] : batches) {
    batch.learning_rate = learning_rate * rates.first;
    batch.weight_decay_scale = rates.second;
    batch.inverse_scale = scale.reciprocal();
    batch.skip = 1 - finite;
    update_aten(batch);
  }
  if (!copies.empty()) at::_foreach_copy_(copies, masters);
}

std::vector<TensorPiece> Optimizer::state() const {
  std::vector<TensorPiece> tensors;
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const Parameter& parameter = parameters_[i];
      tensors.push_back(parameter.placement.piece(slot_names_[slot] + "/" + parameter.name, slots_[slot][i]));
    }
  }
  return tensors;
}

int64_t Optimizer::num_steps() const { return static_cast<int64_t>(steps_.item<float>()); }

void Optimizer::set_num_steps(int64_t steps) { steps_.fill_(static_cast<double>(steps)); }

void Optimizer::set_first_steps(std::vector<int64_t> steps) {
  TORCH_INTERNAL_ASSERT(steps.size() == parameters_.size());
  const std::set<int64_t> different(steps.begin(), steps.end());
  first_steps_ = torch::tensor(std::vector<int64_t>(different.begin(), different.end())).to(steps_.options());
  for (size_t i = 0; i < steps.size(); ++i) {
    ages_[i] = static_cast<size_t>(std::distance(different.begin(), different.find(steps[i])));
  }
}

std::vector<int64_t> Optimizer::ages_now() const {
  const at::Tensor steps = (steps_ - first_steps_).to(at::kLong);
  return {steps.const_data_ptr<int64_t>(), steps.const_data_ptr<int64_t>() + steps.numel()};
}

}  // namespace tessera
