#include "parallel/plugin.h"
#include "tests/trainer/kernels_suite.h"
#include "trainer/blocks/functions.h"

namespace tessera {
namespace {

const Kernels& cuda_kernels() { return kernels_for(torch::empty({1}, at::kCUDA)); }

TEST_P(KernelsOfType, PaddedRowsGiveWhatDenseOnesDo) {
  const at::Tensor logits = random({9, 515}) * 4, bias = random({515});
  const at::Tensor labels = here(torch::randint(0, 515, {9}));
  labels[5] = -1;
  for (const Kernels* kernels : {&ours(), &generic_kernels()}) {
    const at::Tensor buffer = torch::full({9, 576}, 7, logits.options());
    at::Tensor dense = logits.clone(), padded = buffer.narrow(1, 0, 515);
    padded.copy_(logits);
    EXPECT_LT(error(kernels->column_sum(padded), kernels->column_sum(dense)), tolerance());
    const CrossEntropy a = kernels->cross_entropy(padded, bias, labels);
    const CrossEntropy b = kernels->cross_entropy(dense, bias, labels);
    EXPECT_LT(error(a.sum, b.sum), 1e-6);
    EXPECT_EQ(a.correct.item<float>(), b.correct.item<float>());
    EXPECT_LT(error(padded, dense), tolerance());
    EXPECT_TRUE(buffer.narrow(1, 515, 61).eq(7).all().item<bool>());
  }
}

TEST_P(KernelsOfType, ProductsOfPaddedRowsEqualAten) {
  const at::Tensor a = random({7, 33}), b = random({65, 33}), bias = random({65});
  for (const at::Tensor& addend : {bias, at::Tensor()}) {
    const at::Tensor y = multiply_transposed_padded(a, b, addend, 64);
    EXPECT_EQ(y.strides(), at::IntArrayRef({128, 1}));
    EXPECT_LT(error(y, multiply_transposed(a, b, addend)), 2 * tolerance());
    const at::Tensor wide = y.to(at::kDouble);
    EXPECT_LT(error(multiply_transposed(y, b.t()), wide.mm(b.to(at::kDouble))), 2 * tolerance());
    EXPECT_LT(error(multiply_transposed(y.t(), a.t()), wide.t().mm(a.to(at::kDouble))), 2 * tolerance());
  }
  const int64_t here_multiple = a.is_cpu() ? 1 : 64;
  EXPECT_EQ(multiply_transposed_padded(a, b, bias).stride(0) % here_multiple, 0);
}

TEST_P(KernelsOfType, ProductsEqualAten) {
  const at::Tensor a = random({7, 33}), b = random({65, 33}), bias = random({65}), g = random({7, 65});
  EXPECT_LT(error(multiply_transposed(a, b, bias),
                  at::addmm(bias.to(at::kDouble), a.to(at::kDouble), b.to(at::kDouble).t())),
            2 * tolerance());
  EXPECT_LT(error(multiply_transposed(g, b.t()), g.to(at::kDouble).mm(b.to(at::kDouble))), 2 * tolerance());
  EXPECT_LT(error(multiply_transposed(g.t(), a.t()), g.to(at::kDouble).t().mm(a.to(at::kDouble))),
            2 * tolerance());
}

INSTANTIATE_TEST_SUITE_P(
    All, KernelsOfType,
    testing::Combine(testing::Values(at::kFloat, at::kBFloat16, at::kHalf),
                     testing::Values(KernelsUnderTest{"CPU", at::kCPU, cpu_kernels, [] { return true; }},
                                     KernelsUnderTest{"CUDA", at::kCUDA, cuda_kernels,
                                                      [] { return find_gpu_plugin() != nullptr; }})),
    name_of_kernels);

TEST(Dropout, IsTheSameForAnySplitAndAnyThreads) {
  const at::Tensor samples = torch::arange(10, 26), x = torch::randn({16 * 8, 96});
  const at::Tensor whole = cpu_kernels().dropout(x, site_for(samples, 8));
  const at::Tensor part = cpu_kernels().dropout(x.slice(0, 40, 72), site_for(samples.slice(0, 5, 9), 8));
  EXPECT_TRUE(torch::equal(part, whole.slice(0, 40, 72)));
  const int threads = at::get_num_threads();
  at::set_num_threads(3);
  EXPECT_TRUE(torch::equal(whole, cpu_kernels().dropout(x, site_for(samples, 8))));
  at::set_num_threads(threads);
}

TEST(Dropout, KeepsTheRightShareAndDiffersBetweenSites) {
  const at::Tensor samples = torch::arange(64), x = torch::ones({64 * 32, 256});
  DropoutSite site = site_for(samples, 32, 0.1);
  const at::Tensor first = cpu_kernels().dropout(x, site);
  const double count = static_cast<double>(x.numel());
  EXPECT_NEAR(first.eq(0).sum().item<double>(), 0.1 * count, 3 * std::sqrt(count * 0.09));
  EXPECT_NEAR(first.mean().item<double>(), 1, 3 * std::sqrt(0.1 / 0.9 / count));
  site.key += 1;
  const at::Tensor second = cpu_kernels().dropout(x, site);
  EXPECT_NEAR((first.eq(0) * second.eq(0)).sum().item<double>(), 0.01 * count, 3 * std::sqrt(count * 0.0099));
}

// Differentiates numerically in float64, where the compositions of ATen run: it tests the functions'
// bookkeeping.
void check_gradients(const std::function<at::Tensor(const std::vector<at::Tensor>&)>& function,
                     std::vector<at::Tensor> inputs) {
  for (at::Tensor& input : inputs) input.requires_grad_();
  const auto analytic = torch::autograd::grad({function(inputs)}, inputs);
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < inputs.size(); ++i) {
    at::Tensor flat = inputs[i].view(-1);
    for (int64_t at = 0; at < std::min<int64_t>(flat.numel(), 12); ++at) {
      const double step = 1e-5, value = flat[at].item<double>();
      flat[at] = value + step;
      const double above = function(inputs).item<double>();
      flat[at] = value - step;
      const double below = function(inputs).item<double>();
      flat[at] = value;
      EXPECT_NEAR(analytic[i].reshape(-1)[at].item<double>(), (above - below) / (2 * step), 1e-6)
          << i << " " << at;
    }
  }
}

at::Tensor wide(std::vector<int64_t> shape) { return torch::randn(shape, at::kDouble); }

TEST(Functions, HaveTheGradientsOfTheirValues) {
  torch::manual_seed(5);
  const at::Tensor mix = wide({4, 6}), mix2 = wide({4, 6}), labels = torch::tensor({1, 0, -1, 2});
  check_gradients([&](const auto& in) { return (ops::linear(in[0], in[1], in[2]) * mix).sum(); },
                  {wide({4, 5}), wide({6, 5}), wide({6})});
  check_gradients(
      [&](const auto& in) {
        return (ops::joined_linear(in[0], {in[1], in[2]}, {in[3], in[4]}) * mix).sum();
      },
      {wide({4, 5}), wide({2, 5}), wide({4, 5}), wide({2}), wide({4})});
  check_gradients(
      [&](const auto& in) {
        ResidualNormInput input{
            in[0], in[1], in[2], in[3], in[4], 1e-5, site_for(torch::tensor({1, 2}), 2, 0.3)};
        const auto [sum, normed] = ops::residual_norm(input);
        return (sum * mix + normed * mix2).sum();
      },
      {wide({4, 6}), wide({6}), wide({4, 6}), wide({6}), wide({6})});
  check_gradients(
      [&](const auto& in) { return (ops::activation(in[0], in[1], Activation::gelu_erf) * mix).sum(); },
      {wide({4, 6}), wide({6})});
  check_gradients(
      [&](const auto& in) { return ops::linear_cross_entropy(in[0], in[1], in[2], labels).sum * 0.7; },
      {wide({4, 6}), wide({5, 6}), wide({5})});
}

TEST(LinearCrossEntropy, IsTheSameInChunks) {
  torch::manual_seed(6);
  const at::Tensor labels = torch::randint(0, 40, {11});
  std::vector<at::Tensor> inputs{torch::randn({11, 8}), torch::randn({40, 8}), torch::randn({40})};
  for (at::Tensor& input : inputs) input.requires_grad_();
  const auto whole = ops::linear_cross_entropy(inputs[0], inputs[1], inputs[2], labels);
  const auto parts =
      ops::linear_cross_entropy(inputs[0], inputs[1], inputs[2], labels, {.chunk_bytes = 3 * 40 * 4});
  EXPECT_LT(error(parts.sum, whole.sum), 1e-6);
  EXPECT_EQ(parts.correct.item<float>(), whole.correct.item<float>());
  const auto a = torch::autograd::grad({whole.sum * 0.5}, inputs),
             b = torch::autograd::grad({parts.sum * 0.5}, inputs);
  for (size_t i = 0; i < inputs.size(); ++i) EXPECT_LT(error(b[i], a[i]), 2e-6) << i;
}

TEST(LinearCrossEntropy, IsTheSameInPaddedRows) {
  torch::manual_seed(6);
  at::Tensor labels = torch::randint(0, 41, {11});
  labels[3] = -1;
  for (const auto& [type, tolerance] : {std::pair(at::kFloat, 2e-6), std::pair(at::kBFloat16, 2e-2)}) {
    std::vector<at::Tensor> inputs{torch::randn({11, 8}), torch::randn({41, 8}), torch::randn({41})};
    for (at::Tensor& input : inputs) input = input.to(type).requires_grad_();
    const auto loss = [&](int64_t chunk_bytes, int64_t row_multiple) {
      return ops::linear_cross_entropy(inputs[0], inputs[1], inputs[2], labels, {chunk_bytes, row_multiple});
    };
    const auto dense = loss(1 << 20, 1);
    const auto wanted = torch::autograd::grad({dense.sum * 0.5}, inputs);
    for (const int64_t chunk_bytes : {1 << 20, 3 * 41 * 4}) {
      const auto padded = loss(chunk_bytes, 64);
      EXPECT_LT(error(padded.sum, dense.sum), tolerance);
      EXPECT_EQ(padded.correct.item<float>(), dense.correct.item<float>());
      const auto found = torch::autograd::grad({padded.sum * 0.5}, inputs);
      for (size_t i = 0; i < inputs.size(); ++i) EXPECT_LT(error(found[i], wanted[i]), tolerance) << i;
    }
  }
}

}  // namespace
}  // namespace tessera
