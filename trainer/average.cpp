#include "trainer/average.h"

#include <torch/torch.h>

#include "trainer/kernels/cpu/blocks.h"
#include "trainer/kernels/cpu/loops.h"

namespace tessera {

WeightAverage::WeightAverage(std::vector<Parameter> parameters, double decay)
    : parameters_(std::move(parameters)), decay_(decay) {
  for (const auto& parameter : parameters_) averages_.push_back(parameter.master.detach().clone());
}

void WeightAverage::update() {
  const torch::NoGradGuard no_grad;
  if (averages_.empty()) return;
  if (!averages_.front().is_cpu()) {
    std::vector<at::Tensor> masters;
    for (const auto& parameter : parameters_) masters.push_back(parameter.master);
    return at::_foreach_lerp_(averages_, masters, 1 - decay_);
  }
  std::vector<int64_t> sizes;
  for (const auto& average : averages_) sizes.push_back(average.numel());
  const auto weight = static_cast<float>(1 - decay_);
  blocks::for_each_span(blocks::make_spans(sizes), [&](const blocks::Span& span, int64_t) {
    const auto index = static_cast<size_t>(span.tensor);
    loops::average(averages_[index].data_ptr<float>() + span.offset,
                   parameters_[index].master.data_ptr<float>() + span.offset, span.count, weight);
  });
}

void WeightAverage::restart() {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < parameters_.size(); ++i) averages_[i].copy_(parameters_[i].master);
}

void WeightAverage::swap() {
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < averages_.size(); ++i) {
    const at::Tensor kept = parameters_[i].master.clone();
    parameters_[i].master.copy_(averages_[i]);
    averages_[i].copy_(kept);
  }
  refresh_working(parameters_);
}

std::vector<TensorPiece> WeightAverage::state() const {
  std::vector<TensorPiece> tensors;
  for (size_t i = 0; i < averages_.size(); ++i) {
    tensors.push_back(parameters_[i].placement.piece("ema/" + parameters_[i].name, averages_[i]));
  }
  return tensors;
}

}  // namespace tessera
