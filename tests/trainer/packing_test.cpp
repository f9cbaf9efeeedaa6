// Attention without its padding, by the kernel as tests/parallel/fused_attention.h has it.
#include "trainer/packing.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "parallel/attention_kernel.h"
#include "tests/parallel/fused_attention.h"
#include "trainer/batch_division.h"
#include "trainer/blocks/packed_attention.h"

namespace tessera {
namespace {
constexpr double masked = -std::numeric_limits<double>::infinity();

at::Tensor mask_of(const std::vector<int64_t>& lengths, int64_t sequence) {
  return torch::arange(sequence).unsqueeze(0) < torch::tensor(lengths, at::kLong).unsqueeze(1);
}

TEST(Packing, numbers_the_tokens_of_each_sample) {
  const Packing packing = pack(mask_of({3, 0, 1, 4}, 4));
  EXPECT_TRUE(at::equal(packing.rows, torch::tensor({0, 1, 2, 8, 12, 13, 14, 15}, at::kLong)));
  EXPECT_TRUE(at::equal(packing.starts, torch::tensor({0, 3, 3, 4, 8}, at::kInt)));
  EXPECT_EQ(packing.longest, 4);
  EXPECT_TRUE(at::equal(packing.places.index_select(0, packing.rows), torch::arange(8)));
  EXPECT_EQ(packing.padding.sizes(), (at::IntArrayRef{16, 1}));
  EXPECT_TRUE(at::equal(packing.padding.logical_not().nonzero().select(1, 0), packing.rows));
}

TEST(Packing, is_only_for_padding_at_the_end) {
  EXPECT_FALSE(pack({}).defined());
  EXPECT_FALSE(pack(mask_of({0, 0}, 4)).defined());
  for (const int64_t hole : {0, 1}) {
    at::Tensor real = mask_of({4, 3}, 4);
    real[1][hole].fill_(false);
    EXPECT_FALSE(pack(real).defined()) << hole;
  }
  EXPECT_TRUE(pack(mask_of({4, 4}, 4)).defined());
}

TEST(Packing, goes_and_comes_back) {
  torch::manual_seed(1);
  const at::Tensor real = mask_of({5, 1, 0, 8}, 8);
  const Packing packing = pack(real);
  const at::Tensor x = torch::randn({32, 3}), y = torch::randn({14, 3});
  EXPECT_TRUE(at::equal(ops::unpack_rows(ops::pack_rows(x, packing), packing), x * real.view({32, 1})));
  EXPECT_NEAR((ops::pack_rows(x, packing) * y).sum().item<double>(),
              (x * ops::unpack_rows(y, packing)).sum().item<double>(), 1e-5);
}

/// Largest difference relative to the largest expected number.
double difference(const at::Tensor& actual, const at::Tensor& expected) {
  return ((actual - expected).abs().max() / expected.abs().max()).item<double>();
}

// A loss does not look at padding: its gradient there is 0.
TEST(PackedAttention, equals_attention_with_a_bias) {
  for (const bool causal : {false, true}) {
    torch::manual_seed(3);
    const at::Tensor real = mask_of({11, 1, 16, 7}, 16);
    const at::Tensor tokens = real.view({64, 1});
    const at::Tensor joined = torch::randn({64, 3 * 4 * 8}).to(at::kBFloat16).requires_grad_();
    const at::Tensor gradient = torch::randn({64, 4 * 8}).to(at::kBFloat16) * tokens;
    const at::Tensor packed = ops::packed_attention(joined, pack(real), 8, causal);
    const at::Tensor packed_gradient = torch::autograd::grad({packed}, {joined}, {gradient})[0];

    at::Tensor bias = torch::zeros({4, 1, 16, 16}, at::kDouble)
                          .masked_fill_(real.logical_not().view({4, 1, 1, 16}), masked);
    if (causal) bias = bias + torch::full({16, 16}, masked, at::kDouble).triu(1);
    const at::Tensor leaf = joined.detach().to(at::kDouble).requires_grad_();
    const auto heads = leaf.view({4, 16, 3, 4, 8}).unbind(2);
    const at::Tensor biased = dense_attention(heads[0].transpose(1, 2), heads[1].transpose(1, 2),
                                              heads[2].transpose(1, 2), bias, false)
                                  .transpose(1, 2)
                                  .reshape({64, 32});
    const at::Tensor expected = torch::autograd::grad({biased}, {leaf}, {gradient.to(at::kDouble)})[0];
    EXPECT_LT(difference(packed.to(at::kDouble), biased * tokens), 1e-2);
    EXPECT_LT(difference(packed_gradient.to(at::kDouble), expected), 1e-2);
    EXPECT_TRUE(packed.masked_select(tokens.logical_not()).eq(0).all().item<bool>());
    EXPECT_TRUE(packed_gradient.masked_select(tokens.logical_not()).eq(0).all().item<bool>());
  }
}

TEST(PackedAttention, takes_samples_without_tokens) {
  const at::Tensor joined = torch::randn({12, 3 * 8}).to(at::kHalf).requires_grad_();
  const at::Tensor output = ops::packed_attention(joined, pack(mask_of({4, 0, 2}, 4)), 8, false);
  output.sum().backward();
  EXPECT_TRUE(output.isfinite().all().item<bool>());
  EXPECT_TRUE(joined.grad().isfinite().all().item<bool>());
  EXPECT_TRUE(joined.grad().slice(0, 4, 8).eq(0).all().item<bool>());
}

TEST(PackedBatches, are_whole_samples_and_know_columns_that_were_added) {
  Batch batch;
  batch.tokens = torch::zeros({2, 5}, at::kLong);
  const auto some = [](int64_t) { return std::vector<int64_t>{0, 1, 2}; };
  EXPECT_FALSE(divide(batch, {}).packing.defined());
  EXPECT_TRUE(at::equal(divide(batch, {4}).packing.starts, torch::tensor({0, 5, 10}, at::kInt)));
  EXPECT_FALSE(divide(batch, {6, 0, some}).packing.defined());
  batch.attention_mask = mask_of({5, 2}, 5);
  const Batch divided = divide(batch, {8}).to(at::kCPU);
  EXPECT_TRUE(at::equal(divided.packing.rows, torch::tensor({0, 1, 2, 3, 4, 8, 9}, at::kLong)));
}

}  // namespace
}  // namespace tessera
