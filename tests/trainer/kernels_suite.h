#pragma once
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "recipes/random.h"
#include "trainer/kernels/kernels.h"

// The tests of one implementation of kernels.h, in every type, against ATen's: instantiated for the CPU's and
// CUDA's in tests/trainer, and in tests/cuda for CUDA's sources compiled for the CPU.
namespace tessera {

struct KernelsUnderTest {
  const char* name;
  at::DeviceType device;
  const Kernels& (*kernels)();
  bool (*available)();
};
inline void PrintTo(const KernelsUnderTest& kernels, std::ostream* out) { *out << kernels.name; }

inline DropoutSite site_for(const at::Tensor& samples, int64_t sequence, double probability = 0.1) {
  DropoutSite site;
  site.key = 0x123456789ABCDEF0;
  site.threshold = static_cast<uint32_t>(probability * 65536);
  site.samples = samples;
  site.sequence = sequence;
  return site;
}

/// The worst error relative to the largest element, both in float64.
inline double error(const at::Tensor& ours, const at::Tensor& theirs) {
  const at::Tensor a = ours.detach().to(at::kDouble), b = theirs.detach().to(at::kDouble);
  return ((a - b).abs().max() / b.abs().max().clamp_min(1e-12)).item<double>();
}

/// Widths of one element to GPT-2's vocabulary, divisible by the elements of 16 bytes and not; more rows than
/// a kernel that sums over rows has blocks.
struct DataShape {
  int64_t rows, width;
};
inline const std::vector<DataShape>& data_shapes() {
  static const std::vector<DataShape> shapes{{520, 1},  {520, 7},  {520, 64}, {520, 768},
                                             {6, 1000}, {6, 1600}, {4, 4096}, {2, 50257}};
  return shapes;
}

class KernelsOfType : public testing::TestWithParam<std::tuple<at::ScalarType, KernelsUnderTest>> {
 protected:
  static at::ScalarType type() { return std::get<0>(GetParam()); }
  static at::Tensor here(const at::Tensor& tensor) { return tensor.to(std::get<1>(GetParam()).device); }
  static at::Tensor random(std::vector<int64_t> shape) { return here(torch::randn(shape).to(type())); }
  static double tolerance() { return type() == at::kFloat ? 2e-6 : type() == at::kHalf ? 2e-3 : 1.6e-2; }
  static const Kernels& ours() { return std::get<1>(GetParam()).kernels(); }
  void SetUp() override {
    if (!std::get<1>(GetParam()).available()) GTEST_SKIP() << "needs a GPU";
    torch::manual_seed(3);
  }

  /// The same values at addresses that no access of more than one element may use.
  static at::Tensor misaligned(const at::Tensor& values) {
    return torch::empty({values.numel() + 1}, values.options()).slice(0, 1).view_as(values).copy_(values);
  }
  static at::Tensor samples_for(int64_t rows, int64_t sequence) {
    return here(torch::arange(7, 7 + (rows + sequence - 1) / sequence) * (int64_t{1} << 33));
  }
  static ResidualNormInput norm_input(DataShape shape, bool norm, bool addends) {
    ResidualNormInput input;
    input.x = random({shape.rows, shape.width});
    if (addends) {
      input.bias = random({shape.width});
      input.residual = random({shape.rows, shape.width});
      input.dropout = site_for(samples_for(shape.rows, 2), 2);
    }
    if (norm) {
      input.weight = random({shape.width});
      input.shift = random({shape.width});
    }
    input.epsilon = 1e-5;
    return input;
  }
  static void expect_near(const at::Tensor& mine, const at::Tensor& theirs, double factor) {
    ASSERT_EQ(mine.defined(), theirs.defined());
    if (!mine.defined()) return;
    EXPECT_EQ(mine.scalar_type(), theirs.scalar_type());
    EXPECT_LT(error(mine, theirs), factor * tolerance());
  }
  static void expect_same_norm(const ResidualNormInput& input) {
    const ResidualNormOutput mine = ours().residual_norm(input);
    const ResidualNormOutput theirs = generic_kernels().residual_norm(input);
    expect_near(mine.sum, theirs.sum, 1);
    expect_near(mine.normed, theirs.normed, 2);
    const at::Tensor g = random(input.x.sizes().vec());
    const at::Tensor h = input.weight.defined() ? random(input.x.sizes().vec()) : at::Tensor();
    const auto a = ours().residual_norm_backward(input, theirs, g, h);
    const auto b = generic_kernels().residual_norm_backward(input, theirs, g, h);
    expect_near(a.residual, b.residual, 2);
    expect_near(a.x, b.x, 2);
    expect_near(a.bias, b.bias, 4);
    expect_near(a.weight, b.weight, 4);
    expect_near(a.shift, b.shift, 4);
    if (h.defined()) {
      expect_near(ours().residual_norm_backward(input, theirs, {}, h).residual,
                  generic_kernels().residual_norm_backward(input, theirs, {}, h).residual, 2);
    }
  }
  static void expect_same_activation(const at::Tensor& x, const at::Tensor& bias, const at::Tensor& g,
                                     Activation kind) {
    // Against float64, so that our approximations are what is measured, not ATen's rounding.
    const at::Tensor wide = (bias.defined() ? x + bias : x).to(at::kDouble), none;
    EXPECT_LT(error(ours().activation(x, bias, kind), generic_kernels().activation(wide, none, kind)),
              tolerance());
    const auto mine = ours().activation_backward(g, x, bias, kind);
    const auto theirs = generic_kernels().activation_backward(g.to(at::kDouble), wide, none, kind);
    EXPECT_LT(error(mine.x, theirs.x), 2 * tolerance());
    ASSERT_EQ(mine.bias.defined(), bias.defined());
    if (bias.defined()) {
      EXPECT_LT(error(mine.bias, theirs.x.sum(0)), 4 * tolerance());
    }
  }
  static void expect_same_loss(const at::Tensor& logits, const at::Tensor& bias, const at::Tensor& labels) {
    // Against float64, as ATen's float32 loses digits over 50,257 classes.
    at::Tensor mine = logits, theirs = logits.to(at::kDouble);
    const CrossEntropy a = ours().cross_entropy(mine, bias, labels);
    const CrossEntropy b = generic_kernels().cross_entropy(theirs, bias, labels);
    EXPECT_LT(error(a.sum, b.sum), 1e-5);
    EXPECT_EQ(a.correct.item<float>(), b.correct.item<float>());
    EXPECT_LT(error(mine, theirs), 2 * tolerance());
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

TEST_P(KernelsOfType, DropWhatTheCpuDropsBitForBit) {
  for (const auto& [rows, width] : data_shapes()) {
    const at::Tensor x = random({rows, width});
    DropoutSite site = site_for(samples_for(rows, 5), 5, 0.3);
    site.first_group = 12;
    const at::Tensor mine = ours().dropout(x, site), shifted = ours().dropout(misaligned(x), site);
    site.samples = site.samples.cpu();
    EXPECT_TRUE(torch::equal(mine.cpu(), cpu_kernels().dropout(x.cpu(), site))) << width;
    EXPECT_TRUE(torch::equal(mine, shifted)) << width;
  }
}

TEST_P(KernelsOfType, ResidualNormEqualsAten) {
  for (const DataShape& shape : data_shapes()) {
    SCOPED_TRACE(shape.width);
    expect_same_norm(norm_input(shape, /*norm=*/true, /*addends=*/true));
    expect_same_norm(norm_input(shape, /*norm=*/true, /*addends=*/false));
    expect_same_norm(norm_input(shape, /*norm=*/false, /*addends=*/true));
  }
  ResidualNormInput input = norm_input({6, 64}, true, true);
  for (at::Tensor* each : {&input.x, &input.residual, &input.weight}) *each = misaligned(*each);
  expect_same_norm(input);
}

TEST_P(KernelsOfType, ActivationsEqualAten) {
  for (const Activation kind : {Activation::gelu_erf, Activation::gelu_tanh, Activation::relu}) {
    for (const auto& [rows, width] : data_shapes()) {
      SCOPED_TRACE(width);
      const at::Tensor x = random({rows, width}) * 3, bias = random({width}), g = random({rows, width});
      expect_same_activation(x, bias, g, kind);
    }
    const at::Tensor x = random({5, 64}) * 3, g = random({5, 64});
    expect_same_activation(misaligned(x), random({64}), g, kind);
    expect_same_activation(x, {}, g, kind);
  }
}

TEST_P(KernelsOfType, CrossEntropyEqualsAten) {
  for (const auto& [rows, width] : data_shapes()) {
    SCOPED_TRACE(width);
    const at::Tensor logits = random({rows, width}) * 4, bias = random({width});
    const at::Tensor labels = here(torch::randint(0, width, {rows}));
    labels[1] = logits[1].to(at::kFloat).add(bias.to(at::kFloat)).argmax();
    expect_same_loss(logits.clone(), bias, labels);
    expect_same_loss(misaligned(logits), {}, labels);
  }
}

TEST_P(KernelsOfType, CrossEntropyLeavesOutRowsWithoutLabel) {
  at::Tensor logits = random({9, 515}) * 4;
  const at::Tensor labels = here(torch::randint(0, 515, {9}));
  labels[2] = logits[2].argmax();
  labels[5] = -1;
  at::Tensor mine = logits.clone();
  const CrossEntropy whole = ours().cross_entropy(mine, {}, labels);
  EXPECT_EQ(mine[5].abs().max().item<float>(), 0);
  EXPECT_GT(mine[4].abs().max().item<float>(), 0);
  EXPECT_GE(whole.correct.item<float>(), 1);
  expect_same_loss(logits, {}, labels);
}

TEST_P(KernelsOfType, CrossEntropyTakesTheFirstOfEqualLogitsForTheBest) {
  at::Tensor logits = torch::zeros({4, 1003});
  logits.index_put_({torch::indexing::Slice(), 17}, 2);
  logits.index_put_({torch::indexing::Slice(), 900}, 2);
  logits = here(logits.to(type()));
  const at::Tensor labels = here(torch::tensor({17, 900, 3, 1002}));
  EXPECT_EQ(ours().cross_entropy(logits, {}, labels).correct.item<float>(), 1);
}

// As of a masked vocabulary: exp(-inf) is 0, whatever a thread meets first.
TEST_P(KernelsOfType, CrossEntropyTakesLogitsOfMinusInfinity) {
  at::Tensor logits = random({3, 600});
  logits.slice(1, 0, 590).fill_(-INFINITY);
  const at::Tensor labels = here(torch::tensor({595, 590, 599}));
  expect_same_loss(logits, {}, labels);
}

TEST_P(KernelsOfType, ColumnSumEqualsAten) {
  const at::Tensor x = random({50, 1030});
  EXPECT_LT(error(ours().column_sum(x), x.to(at::kDouble).sum(0)), 2 * tolerance());
}

inline std::string name_of_kernels(const testing::TestParamInfo<KernelsOfType::ParamType>& each) {
  return std::get<1>(each.param).name + std::string(c10::toString(std::get<0>(each.param)));
}

}  // namespace tessera
