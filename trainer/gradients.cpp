#include "trainer/gradients.h"

#include <torch/torch.h>

#include "trainer/kernels/cpu/blocks.h"
#include "trainer/kernels/cpu/loops.h"
#include "trainer/kernels/kernels.h"

namespace tessera {
namespace {

at::Tensor sum_of_squares_cpu(const std::vector<at::Tensor>& gradients) {
  std::vector<int64_t> sizes;
  for (const auto& gradient : gradients) {
    TORCH_INTERNAL_ASSERT(gradient.is_contiguous());
    sizes.push_back(gradient.numel());
  }
  const auto spans = blocks::make_spans(sizes);
  std::vector<float> sums(spans.size());
  blocks::for_each_span(spans, [&](const blocks::Span& span, int64_t index) {
    const auto& gradient = gradients[static_cast<size_t>(span.tensor)];
    const auto* data =
        static_cast<const char*>(gradient.const_data_ptr()) + span.offset * gradient.element_size();
    float values[blocks::block_size];
    float sum = 0;
    for (int64_t i = 0; i < span.count; i += blocks::block_size) {
      const int64_t count = std::min(blocks::block_size, span.count - i);
      blocks::load(data + i * gradient.element_size(), gradient.scalar_type(), values, count, 1.0F);
      sum += loops::sum_of_squares(values, count);
    }
    sums[static_cast<size_t>(index)] = sum;
  });
  double total = 0;  // in the order of the spans, whoever computed them
  for (const float sum : sums) total += sum;
  return torch::tensor(static_cast<float>(total));
}

// One message of the chosen gradients.
template <class Choose>
void sum_gradients(const std::vector<at::Tensor>& gradients, const std::vector<Parameter>& parameters,
                   const Communicator& ranks, const Choose& choose) {
  if (ranks.size() == 1) return;
  const torch::NoGradGuard no_grad;
  std::vector<at::Tensor> chosen;
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (gradients[i].defined() && choose(parameters[i].placement)) chosen.push_back(gradients[i].view(-1));
  }
  if (chosen.empty()) return;
  const at::Tensor message = at::cat(chosen);
  ranks.all_reduce(message);
  int64_t offset = 0;
  for (const at::Tensor& gradient : chosen) {
    gradient.copy_(message.narrow(0, offset, gradient.numel()));
    offset += gradient.numel();
  }
}

}  // namespace

at::Tensor sum_of_squares(const std::vector<at::Tensor>& gradients) {
  const torch::NoGradGuard no_grad;
  std::vector<at::Tensor> present;
  for (const auto& gradient : gradients) {
    if (gradient.defined() && gradient.numel() > 0) present.push_back(gradient);
  }
  if (present.empty()) return torch::zeros({}, at::kFloat);
  if (present.front().is_cpu()) return sum_of_squares_cpu(present);
  const Kernels& kernels = kernels_for(present.front());
  if (kernels.sum_of_squares) return kernels.sum_of_squares(present);
  const auto norms = at::_foreach_norm(present, 2, at::kFloat);
  return at::stack(norms).square().sum();
}

at::Tensor global_norm(const std::vector<at::Tensor>& gradients) { return sum_of_squares(gradients).sqrt(); }

at::Tensor global_norm(const std::vector<at::Tensor>& gradients, const std::vector<Parameter>& parameters,
                       const Communicator& parts) {
  std::vector<at::Tensor> counted;
  for (size_t i = 0; i < gradients.size(); ++i) {
    if (parameters[i].placement.counted) counted.push_back(gradients[i]);
  }
  at::Tensor sum = sum_of_squares(counted);
  if (parts.size() > 1) {
    sum = sum.to(parts.device()).contiguous();
    parts.all_reduce(sum);
  }
  return sum.sqrt();
}

void sum_whole_gradients(const std::vector<at::Tensor>& gradients, const std::vector<Parameter>& parameters,
                         const Communicator& tensor) {
  sum_gradients(gradients, parameters, tensor, [](const Placement& place) { return !place.split; });
}

void sum_tied_gradients(const std::vector<at::Tensor>& gradients, const std::vector<Parameter>& parameters,
                        const Communicator& ends) {
  sum_gradients(gradients, parameters, ends, [](const Placement& place) { return place.tied; });
}

GradientScale scale_and_clip(const at::Tensor& norm, const at::Tensor& multiplier, double clip) {
  const torch::NoGradGuard no_grad;
  GradientScale scale;
  scale.norm = multiplier.defined() ? norm * multiplier : norm;
  scale.factor = clip > 0 ? (clip / (scale.norm + 1e-6)).clamp_max(1.0) : torch::ones({}, norm.options());
  if (multiplier.defined()) scale.factor = scale.factor * multiplier;
  scale.factor = scale.factor + scale.norm * 0;  // NaN where the norm is not finite
  return scale;
}

}  // namespace tessera
