#include "trainer/kernels/kernels.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "parallel/plugin.h"
#include "recipes/random.h"
#include "trainer/blocks/functions.h"

namespace tessera {
namespace {

DropoutSite site_for(const at::Tensor& samples, int64_t sequence, double probability = 0.1) {
  DropoutSite site;
  site.key = 0x123456789ABCDEF0;
  site.threshold = static_cast<uint32_t>(probability * 65536);
  site.samples = samples;
  site.sequence = sequence;
  return site;
}

// The worst error relative to the largest element, both in float64.
double error(const at::Tensor& ours, const at::Tensor& theirs) {
  const at::Tensor a = ours.detach().to(at::kDouble), b = theirs.detach().to(at::kDouble);
  return ((a - b).abs().max() / b.abs().max().clamp_min(1e-12)).item<double>();
}

// Every device's kernels, in every type, against ATen's.
class KernelsOfType : public testing::TestWithParam<std::tuple<at::ScalarType, at::DeviceType>> {
 protected:
  static at::ScalarType type() { return std::get<0>(GetParam()); }
  static at::Tensor here(const at::Tensor& tensor) { return tensor.to(std::get<1>(GetParam())); }
  static at::Tensor random(std::vector<int64_t> shape) { return here(torch::randn(shape).to(type())); }
  static double tolerance() { return type() == at::kFloat ? 2e-6 : type() == at::kHalf ? 2e-3 : 1.6e-2; }
  static const Kernels& ours() { return kernels_for(random({1, 1})); }
  void SetUp() override {
    if (std::get<1>(GetParam()) == at::kCUDA && !find_gpu_plugin()) GTEST_SKIP() << "needs a GPU";
    torch::manual_seed(3);
  }
};

TEST_P(KernelsOfType, DropsWhatPhiloxSays) {
  const at::Tensor samples = here(torch::tensor({int64_t{7}, int64_t{1} << 40, int64_t{3}})),
                   x = here(torch::ones({6, 21}).to(type()));
  DropoutSite site = site_for(samples, 2, 0.5);
  site.first_position = 9;
  const at::Tensor y = ours().dropout(x, site);
  for (int64_t row = 0; row < 6; ++row) {
    const auto sample = static_cast<uint64_t>(samples[row / 2].item<int64_t>());
    for (int64_t h = 0; h < 21; ++h) {
      const auto words = philox({static_cast<uint32_t>(sample), static_cast<uint32_t>(sample >> 32),
                                 static_cast<uint32_t>(9 + row % 2), static_cast<uint32_t>(h / 8)},
                                {static_cast<uint32_t>(site.key), static_cast<uint32_t>(site.key >> 32)});
      const uint32_t lane = words.at(static_cast<size_t>(h % 8 / 2)) >> (h % 2 * 16) & 0xFFFF;
      EXPECT_EQ(y[row][h].item<float>(), lane >= site.threshold ? 2.0f : 0.0f) << row << " " << h;
    }
  }
  EXPECT_TRUE(torch::equal(y, generic_kernels().dropout(x, site)));
  site.first_position = 0;
  site.positions = here(torch::tensor({int64_t{9}, int64_t{10}}));
  EXPECT_TRUE(torch::equal(y, ours().dropout(x, site)));
  EXPECT_TRUE(torch::equal(y, generic_kernels().dropout(x, site)));
}

TEST_P(KernelsOfType, ResidualNormEqualsAten) {
  for (const int64_t width : {5, 64, 771}) {
    for (const bool norm : {true, false}) {
      for (const bool addends : {true, false}) {
        if (!norm && !addends) continue;
        ResidualNormInput input;
        input.x = random({6, width});
        if (addends) {
          input.bias = random({width});
          input.residual = random({6, width});
          input.dropout = site_for(here(torch::tensor({4, 8, 1})), 2);
        }
        if (norm) {
          input.weight = random({width});
          input.shift = random({width});
        }
        input.epsilon = 1e-5;
        const ResidualNormOutput mine = ours().residual_norm(input);
        const ResidualNormOutput theirs = generic_kernels().residual_norm(input);
        EXPECT_LT(error(mine.sum, theirs.sum), tolerance());
        if (norm) {
          EXPECT_LT(error(mine.normed, theirs.normed), 2 * tolerance());
        }
        const at::Tensor g = random({6, width}), h = norm ? random({6, width}) : at::Tensor();
        const auto a = ours().residual_norm_backward(input, theirs, g, h);
        const auto b = generic_kernels().residual_norm_backward(input, theirs, g, h);
        EXPECT_LT(error(a.residual, b.residual), 2 * tolerance());
        EXPECT_LT(error(a.x, b.x), 2 * tolerance());
        if (addends) {
          EXPECT_LT(error(a.bias, b.bias), 4 * tolerance());
        }
        if (norm) {
          EXPECT_LT(error(a.weight, b.weight), 4 * tolerance());
        }
        if (norm) {
          EXPECT_LT(error(a.shift, b.shift), 4 * tolerance());
        }
      }
    }
  }
}

TEST_P(KernelsOfType, ActivationsEqualAten) {
  for (const Activation kind : {Activation::gelu_erf, Activation::gelu_tanh, Activation::relu}) {
    const at::Tensor x = random({5, 1300}) * 3, bias = random({1300}), g = random({5, 1300});
    // Against float64, so that our approximations are what is measured, not ATen's rounding.
    const at::Tensor wide = (x + bias).to(at::kDouble), none;
    EXPECT_LT(error(ours().activation(x, bias, kind), generic_kernels().activation(wide, none, kind)),
              tolerance());
    const auto mine = ours().activation_backward(g, x, bias, kind);
    const auto theirs = generic_kernels().activation_backward(g.to(at::kDouble), wide, none, kind);
    EXPECT_LT(error(mine.x, theirs.x), 2 * tolerance());
    EXPECT_LT(error(mine.bias, theirs.x.sum(0)), 4 * tolerance());
  }
}

TEST_P(KernelsOfType, CrossEntropyEqualsAten) {
  const at::Tensor logits = random({9, 515}) * 4, bias = random({515});
  const at::Tensor labels = here(torch::randint(0, 515, {9}));
  labels[2] = logits[2].add(bias).argmax();
  labels[5] = -1;  // predicts nothing
  at::Tensor mine = logits.clone(), theirs = logits.clone();
  const CrossEntropy a = ours().cross_entropy(mine, bias, labels);
  const CrossEntropy b = generic_kernels().cross_entropy(theirs, bias, labels);
  EXPECT_LT(error(a.sum, b.sum), 1e-5);
  EXPECT_EQ(a.correct.item<float>(), b.correct.item<float>());
  EXPECT_GE(a.correct.item<float>(), 1);
  EXPECT_LT(error(mine, theirs), tolerance());
  EXPECT_EQ(mine[5].abs().max().item<float>(), 0);
  EXPECT_GT(mine[4].abs().max().item<float>(), 0);
}

TEST_P(KernelsOfType, ColumnSumEqualsAten) {
  const at::Tensor x = random({50, 1030});
  EXPECT_LT(error(ours().column_sum(x), x.to(at::kDouble).sum(0)), 2 * tolerance());
}

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

std::string device_and_type(const testing::TestParamInfo<std::tuple<at::ScalarType, at::DeviceType>>& each) {
  return c10::DeviceTypeName(std::get<1>(each.param)) + std::string(c10::toString(std::get<0>(each.param)));
}
INSTANTIATE_TEST_SUITE_P(All, KernelsOfType,
                         testing::Combine(testing::Values(at::kFloat, at::kBFloat16, at::kHalf),
                                          testing::Values(at::kCPU, at::kCUDA)),
                         device_and_type);

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
