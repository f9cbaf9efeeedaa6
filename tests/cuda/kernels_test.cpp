#include "tests/cuda/fibres.h"
#include "tests/trainer/kernels_suite.h"
#include "trainer/kernels/cuda/model_kernels.h"

namespace tessera {
namespace {

INSTANTIATE_TEST_SUITE_P(All, KernelsOfType,
                         testing::Combine(testing::Values(at::kFloat, at::kBFloat16, at::kHalf),
                                          testing::Values(KernelsUnderTest{"Fibres", at::kCPU, cuda::kernels,
                                                                           [] { return true; }})),
                         name_of_kernels);

// Rows apart, and from addresses that 16 divides and not.
TEST(KernelsOnFibres, GiveTheSameLossInPaddedRows) {
  torch::manual_seed(5);
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const auto& [width, stride] : std::vector<std::pair<int64_t, int64_t>>{
             {515, 576}, {515, 517}, {7, 8}, {50257, 50304}, {130001, 130048}}) {
      const at::Tensor logits = torch::randn({3, width}).to(type), bias = torch::randn({width}).to(type);
      const at::Tensor labels = torch::tensor({int64_t{1}, int64_t{-1}, width - 1});
      const at::Tensor buffer = torch::full({3, stride}, 7, type);
      at::Tensor padded = buffer.narrow(1, 0, width), dense = logits.to(at::kDouble);
      padded.copy_(logits);
      const CrossEntropy a = cuda::kernels().cross_entropy(padded, bias, labels);
      const CrossEntropy b = generic_kernels().cross_entropy(dense, bias, labels);
      EXPECT_LT(error(a.sum, b.sum), 1e-5) << width << " " << stride;
      EXPECT_EQ(a.correct.item<float>(), b.correct.item<float>());
      EXPECT_LT(error(padded, dense), type == at::kFloat ? 2e-6 : 1.6e-2) << width << " " << stride;
      EXPECT_TRUE(buffer.narrow(1, width, stride - width).eq(7).all().item<bool>());
    }
  }
}

// All that the kernels give for one set of inputs.
std::vector<at::Tensor> results_of(const Kernels& kernels, const ResidualNormInput& input) {
  const at::Tensor gradient = input.residual;
  const auto forward = kernels.residual_norm(input);
  const auto backward = kernels.residual_norm_backward(input, forward, gradient, input.x);
  const auto activation = kernels.activation_backward(gradient, input.x, input.bias, Activation::gelu_erf);
  at::Tensor logits = input.x.clone();
  const at::Tensor labels = torch::arange(logits.size(0)).remainder(logits.size(1));
  const auto loss = kernels.cross_entropy(logits, input.bias, labels);
  return {forward.sum,
          forward.normed,
          forward.mean,
          forward.rstd,
          backward.residual,
          backward.x,
          backward.weight,
          backward.shift,
          backward.bias,
          activation.x,
          activation.bias,
          kernels.dropout(input.x, input.dropout),
          kernels.activation(input.x, input.bias, Activation::gelu_tanh),
          logits,
          loss.sum,
          loss.correct};
}

TEST(KernelsOnFibres, DoNotDependOnTheOrderOfThreadsAndBlocks) {
  torch::manual_seed(4);
  for (const auto& [rows, width] : std::vector<DataShape>{{37, 7}, {37, 768}, {3, 5000}}) {
    ResidualNormInput input;
    for (at::Tensor* each : {&input.x, &input.residual}) *each = torch::randn({rows, width}, at::kBFloat16);
    for (at::Tensor* each : {&input.bias, &input.weight, &input.shift})
      *each = torch::randn({width}, at::kBFloat16);
    input.dropout = site_for(torch::arange(rows), 1);
    std::vector<std::vector<at::Tensor>> runs;
    for (const auto order : {fibres::Order::ascending, fibres::Order::descending, fibres::Order::shuffled}) {
      fibres::set_order(order);
      runs.push_back(results_of(cuda::kernels(), input));
    }
    fibres::set_order(fibres::Order::ascending);
    for (size_t i = 0; i < runs[0].size(); ++i) {
      EXPECT_TRUE(torch::equal(runs[0][i], runs[1][i])) << width << ": result " << i;
      EXPECT_TRUE(torch::equal(runs[0][i], runs[2][i])) << width << ": result " << i;
    }
  }
}

}  // namespace
}  // namespace tessera
