#include <ATen/ATen.h>

#include "trainer/kernels/kernels.h"

namespace tessera::generic {
namespace {

at::ScalarType wide(const at::Tensor& data) {
  return data.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// Philox4x32-10 on int64 tensors that hold 32-bit words; recipes/random.h has it for scalars.
std::array<at::Tensor, 4> philox(std::array<at::Tensor, 4> counter, uint64_t key) {
  constexpr int64_t word = 0xFFFFFFFF;
  int64_t key0 = static_cast<int64_t>(key & word), key1 = static_cast<int64_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const at::Tensor p0 = counter[0] * int64_t{0xD2511F53}, p1 = counter[2] * int64_t{0xCD9E8D57};
    counter = {p1.bitwise_right_shift(32).bitwise_and(word).bitwise_xor(counter[1]).bitwise_xor(key0),
               p1.bitwise_and(word),
               p0.bitwise_right_shift(32).bitwise_and(word).bitwise_xor(counter[3]).bitwise_xor(key1),
               p0.bitwise_and(word)};
    key0 = (key0 + 0x9E3779B9) & word;
    key1 = (key1 + 0xBB67AE85) & word;
  }
  return counter;
}

// [rows, hidden] bool
at::Tensor kept(int64_t rows, int64_t hidden, const DropoutSite& site) {
  const auto options = site.samples.options().dtype(at::kLong);
  const at::Tensor row = at::arange(rows, options);
  const at::Tensor sample = site.samples.index_select(0, row.floor_divide(site.sequence)).unsqueeze(1);
  const at::Tensor column = row.remainder(site.sequence);
  const at::Tensor position =
      (site.positions.defined() ? site.positions.index_select(0, column) : column + site.first_position)
          .unsqueeze(1);
  const int64_t groups = (hidden + 7) / 8;
  const at::Tensor group = at::arange(groups, options).unsqueeze(0) + static_cast<int64_t>(site.first_group);
  const auto shape = std::vector<int64_t>{rows, groups};
  const auto words =
      philox({sample.bitwise_and(0xFFFFFFFF).expand(shape), sample.bitwise_right_shift(32).expand(shape),
              position.expand(shape), group.expand(shape)},
             site.key);
  std::vector<at::Tensor> lanes;
  for (const at::Tensor& each : words) {
    lanes.push_back(each.bitwise_and(0xFFFF));
    lanes.push_back(each.bitwise_right_shift(16));
  }
  return at::stack(lanes, 2)
      .reshape({rows, groups * 8})
      .slice(1, 0, hidden)
      .ge(static_cast<int64_t>(site.threshold));
}

at::Tensor dropout(const at::Tensor& x, const DropoutSite& site) {
  if (!site.active()) return x;
  return at::where(kept(x.size(0), x.size(1), site), x * site.scale(), at::zeros({}, x.options()));
}

ResidualNormOutput residual_norm(const ResidualNormInput& input) {
  ResidualNormOutput output;
  output.sum = dropout(input.bias.defined() ? input.x + input.bias : input.x, input.dropout);
  if (input.residual.defined()) output.sum = output.sum + input.residual;
  if (!input.weight.defined()) return output;
  const at::Tensor sum = output.sum.to(wide(input.x));
  output.mean = sum.mean(1);
  output.rstd = (sum.var(1, /*unbiased=*/false) + input.epsilon).rsqrt();
  const at::Tensor scaled = (sum - output.mean.unsqueeze(1)) * output.rstd.unsqueeze(1);
  output.normed = (scaled * input.weight + input.shift).to(input.x.scalar_type());
  return output;
}

ResidualNormGradient residual_norm_backward(const ResidualNormInput& input, const ResidualNormOutput& output,
                                            const at::Tensor& sum_gradient,
                                            const at::Tensor& normed_gradient) {
  const at::ScalarType narrow = input.x.scalar_type();
  ResidualNormGradient gradient;
  at::Tensor total;
  if (sum_gradient.defined()) total = sum_gradient.to(wide(input.x));
  if (normed_gradient.defined()) {
    const at::Tensor g = normed_gradient.to(wide(input.x));
    const at::Tensor rstd = output.rstd.unsqueeze(1);
    const at::Tensor scaled = (output.sum - output.mean.unsqueeze(1)) * rstd;
    const at::Tensor gw = g * input.weight;
    const at::Tensor through = (gw - gw.mean(1, true) - scaled * (gw * scaled).mean(1, true)) * rstd;
    total = total.defined() ? total + through : through;
    gradient.weight = (g * scaled).sum(0).to(narrow);
    gradient.shift = g.sum(0).to(narrow);
  }
  gradient.residual = total.to(narrow);
  gradient.x = dropout(gradient.residual, input.dropout);
  if (input.bias.defined()) gradient.bias = gradient.x.sum(0);
  return gradient;
}

at::Tensor activation(const at::Tensor& x, const at::Tensor& bias, Activation kind) {
  const at::Tensor sum = bias.defined() ? x + bias : x;
  if (kind == Activation::relu) return sum.relu();
  return at::gelu(sum, kind == Activation::gelu_erf ? "none" : "tanh");
}

ActivationGradient activation_backward(const at::Tensor& gradient, const at::Tensor& x,
                                       const at::Tensor& bias, Activation kind) {
  const at::Tensor sum = bias.defined() ? x + bias : x;
  ActivationGradient result;
  result.x = kind == Activation::relu
                 ? at::threshold_backward(gradient, sum, 0)
                 : at::gelu_backward(gradient, sum, kind == Activation::gelu_erf ? "none" : "tanh");
  if (bias.defined()) result.bias = result.x.sum(0);
  return result;
}

CrossEntropy cross_entropy(at::Tensor& logits, const at::Tensor& bias, const at::Tensor& labels) {
  at::Tensor values = logits.to(wide(logits));
  if (bias.defined()) values = values + bias;
  const at::Tensor log_probabilities = values.log_softmax(1);
  const at::Tensor predicts = labels.ge(0).to(values.scalar_type()).unsqueeze(1);
  const at::Tensor index = labels.clamp_min(0).unsqueeze(1);
  CrossEntropy result{-(log_probabilities.gather(1, index) * predicts).sum(),
                      values.argmax(1).eq(labels).sum().to(at::kFloat)};
  at::Tensor gradient = log_probabilities.exp();
  gradient.scatter_add_(1, index, at::full_like(index, -1, gradient.options()));
  logits.copy_(gradient * predicts);
  return result;
}

at::Tensor column_sum(const at::Tensor& x) { return x.sum(0); }

}  // namespace
}  // namespace tessera::generic

namespace tessera {

const Kernels& generic_kernels() {
  static const Kernels kernels{
      generic::dropout,    generic::residual_norm,       generic::residual_norm_backward,
      generic::activation, generic::activation_backward, generic::cross_entropy,
      generic::column_sum};
  return kernels;
}

}  // namespace tessera
