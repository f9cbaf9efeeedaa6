// Blocks against attention written out in float64, by the fused kernel and by the composition.
#include "parallel/attention_block.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "parallel/context_layout.h"

namespace tessera {
namespace {
constexpr double masked = -std::numeric_limits<double>::infinity();

struct Kernels {
  const char* name;
  AttentionRows (*forward)(const AttentionBlock& block);
  std::array<at::Tensor, 3> (*backward)(const AttentionBlock& block, const AttentionRows& rows,
                                        const at::Tensor& gradient);
};

class AttentionBlockTest : public testing::TestWithParam<Kernels> {};

at::Tensor noise(std::vector<int64_t> sizes, at::ScalarType type) { return torch::randn(sizes).to(type); }

/// Largest difference relative to the largest expected number.
double difference(const at::Tensor& actual, const at::Tensor& expected) {
  return ((actual.to(at::kDouble) - expected).abs().max() / expected.abs().max()).item<double>();
}

AttentionBlock make_block(int64_t queries, int64_t keys, at::ScalarType type) {
  torch::manual_seed(queries + keys);
  return {noise({2, queries, 4, 32}, type).transpose(1, 2),
          noise({2, 4, keys, 32}, type),
          noise({2, 4, keys, 32}, type),
          {}};
}

/// Everything masked in sample 1 and in row 3 of sample 0, and all but the last keys in row 0 (kernels go
/// through keys in stretches of up to 512).
void add_bias(AttentionBlock& block) {
  const int64_t queries = block.query.size(2), keys = block.key.size(2);
  at::Tensor allowed = torch::rand({2, 1, queries, keys}) > 0.5;
  allowed[0][0][3].fill_(false);
  allowed[0][0][0].narrow(0, 0, keys - 5).fill_(false);
  allowed[1].fill_(false);
  block.mask.empty_rows = allowed.any(3).logical_not();
  block.mask.bias =
      torch::zeros(allowed.sizes(), block_type(block.query)).masked_fill_(allowed.logical_not(), masked);
}

/// Against float64 and autograd.
void expect_block(const Kernels& kernels, const AttentionBlock& block, double tolerance) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& x : {block.query, block.key, block.value})
    leaves.push_back(x.to(at::kDouble).detach().requires_grad_());
  at::Tensor scores = at::matmul(leaves[0], leaves[1].transpose(2, 3)) / std::sqrt(32.0);
  if (block.mask.causal)
    scores = scores + torch::full({scores.size(2), scores.size(3)}, masked, at::kDouble).triu(1);
  if (block.mask.bias.defined()) scores = scores + block.mask.bias;
  const at::Tensor log_sum = scores.logsumexp(3).detach();
  const at::Tensor none = log_sum == masked;
  const at::Tensor rows_filled = scores.masked_fill(none.unsqueeze(3), 0);  // autograd's 0 * NaN is NaN
  const at::Tensor probabilities = rows_filled.softmax(3).masked_fill(none.unsqueeze(3), 0);
  const at::Tensor expected = at::matmul(probabilities, leaves[2]);
  const AttentionRows rows = kernels.forward(block);
  EXPECT_LT(difference(rows.output, expected), tolerance);
  EXPECT_TRUE(at::equal(rows.log_sum == masked, none));
  EXPECT_TRUE(at::allclose(rows.log_sum.to(at::kDouble), log_sum, 0, std::min(tolerance * 10, 2e-4)));

  const at::Tensor gradient = noise(block.query.sizes().vec(), block.query.scalar_type());
  const auto wanted = torch::autograd::grad({expected}, leaves, {gradient.to(at::kDouble)});
  const auto actual = kernels.backward(block, {rows.output, rows.log_sum.masked_fill(none, 0)}, gradient);
  for (size_t i = 0; i < 3; ++i) EXPECT_LT(difference(actual[i], wanted[i]), tolerance) << "gradient " << i;
}

TEST_P(AttentionBlockTest, equals_softmax_in_float64) {
  const std::vector<std::pair<at::ScalarType, double>> types{
      {at::kDouble, 1e-12}, {at::kFloat, 2e-6}, {at::kBFloat16, 2e-2}, {at::kHalf, 2e-3}};
  for (const auto& type : types) {
    for (const auto& sizes : std::vector<std::pair<int64_t, int64_t>>{{64, 64}, {40, 13}, {50, 600}}) {
      AttentionBlock block = make_block(sizes.first, sizes.second, type.first);
      SCOPED_TRACE(std::string(c10::toString(type.first)) + " x " + std::to_string(sizes.second));
      expect_block(GetParam(), block, type.second);
      add_bias(block);
      expect_block(GetParam(), block, type.second);
    }
    AttentionBlock causal = make_block(64, 64, type.first);
    causal.mask.causal = true;
    expect_block(GetParam(), causal, type.second);
  }
}

TEST_P(AttentionBlockTest, takes_biases_of_one_row_and_causal_ones) {
  AttentionBlock block = make_block(48, 48, at::kFloat);
  const at::Tensor allowed = (torch::arange(48) > 5).view({1, 1, 1, 48}).expand({2, 1, 1, 48}).clone();
  allowed[1].fill_(false);
  block.mask.empty_rows = allowed.any(3).logical_not();
  block.mask.bias = torch::zeros(allowed.sizes()).masked_fill_(allowed.logical_not(), masked);
  expect_block(GetParam(), block, 2e-6);
  const at::Tensor below = allowed.expand({2, 1, 48, 48}).tril();
  block.mask.causal = true;
  block.mask.empty_rows = below.any(3).logical_not();
  block.mask.bias = torch::zeros(below.sizes()).masked_fill_(below.logical_not(), masked);
  expect_block(GetParam(), block, 2e-6);
}

TEST_P(AttentionBlockTest, halves_of_the_keys_merge_into_the_whole) {
  AttentionBlock block = make_block(40, 64, at::kDouble);
  add_bias(block);
  const AttentionRows whole = GetParam().forward(block);
  const AttentionRows merged{torch::zeros_like(whole.output), torch::full_like(whole.log_sum, masked)};
  for (const int64_t first : {0, 32}) {
    AttentionBlock half = block;
    half.key = block.key.narrow(2, first, 32);
    half.value = block.value.narrow(2, first, 32);
    half.mask.bias = block.mask.bias.narrow(3, first, 32);
    half.mask.empty_rows = (half.mask.bias == masked).all(3);
    merge_rows(merged, GetParam().forward(half));
  }
  EXPECT_LT(difference(merged.output, whole.output), 1e-13);
  EXPECT_TRUE(at::allclose(merged.log_sum, whole.log_sum, 0, 1e-13));
}

INSTANTIATE_TEST_SUITE_P(Kernels, AttentionBlockTest,
                         testing::Values(Kernels{"fused", attend_block, attend_block_backward},
                                         Kernels{"composed", compose_block, compose_block_backward}),
                         [](const auto& parameter) { return std::string(parameter.param.name); });

TEST(ContextPositions, cover_the_sequence_once) {
  using Positions = std::vector<int64_t>;
  EXPECT_EQ(context_positions(12, 0, 3, true), (Positions{0, 1, 10, 11}));
  EXPECT_EQ(context_positions(12, 2, 3, true), (Positions{4, 5, 6, 7}));
  EXPECT_EQ(context_positions(12, 1, 3, false), (Positions{4, 5, 6, 7}));
  EXPECT_EQ(context_positions(3, 0, 1, true), (Positions{0, 1, 2}));  // alone, there is nothing to halve
  EXPECT_THROW(context_positions(9, 0, 3, true), std::logic_error);
  const at::Tensor whole = torch::arange(24).view({2, 12});
  for (const bool zigzag : {false, true}) {
    for (int rank = 0; rank < 3; ++rank) {
      const at::Tensor index = torch::tensor(context_positions(12, rank, 3, zigzag));
      EXPECT_TRUE(at::equal(context_part(whole, 1, rank, 3, zigzag), whole.index_select(1, index)));
    }
  }
}

TEST(ContextPositions, share_the_causal_work_equally) {
  for (const int size : {1, 2, 3, 4}) {
    for (int rank = 0; rank < size; ++rank) {
      int64_t pairs = 0;
      for (const int64_t position : context_positions(48, rank, size, true)) pairs += position + 1;
      EXPECT_EQ(pairs * size, 48 * 49 / 2);
    }
  }
}
}  // namespace
}  // namespace tessera
