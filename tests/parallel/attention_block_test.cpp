// Blocks against attention written out in float64, by every kernel: those for CUDA as fused_attention.h has
// them.
#include "parallel/attention_block.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "parallel/attention_kernel.h"
#include "parallel/context_layout.h"
#include "tests/parallel/fused_attention.h"

namespace tessera {
namespace {
constexpr double masked = -std::numeric_limits<double>::infinity();

struct Kernels {
  const char* name;
  AttentionRows (*forward)(const AttentionBlock& block);
  std::array<at::Tensor, 3> (*backward)(const AttentionBlock& block, const AttentionRows& rows,
                                        const at::Tensor& gradient);
  std::vector<at::ScalarType> types;
  bool takes_biases = true;
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

double tolerance_of(at::ScalarType type) {
  return type == at::kDouble ? 1e-12 : type == at::kFloat ? 2e-6 : type == at::kHalf ? 2e-3 : 2e-2;
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
  for (const at::ScalarType type : GetParam().types) {
    for (const auto& sizes : std::vector<std::pair<int64_t, int64_t>>{{64, 64}, {40, 13}, {50, 600}}) {
      AttentionBlock block = make_block(sizes.first, sizes.second, type);
      SCOPED_TRACE(std::string(c10::toString(type)) + " x " + std::to_string(sizes.second));
      expect_block(GetParam(), block, tolerance_of(type));
      if (!GetParam().takes_biases) continue;
      add_bias(block);
      expect_block(GetParam(), block, tolerance_of(type));
    }
    AttentionBlock causal = make_block(64, 64, type);
    causal.mask.causal = true;
    expect_block(GetParam(), causal, tolerance_of(type));
  }
}

TEST_P(AttentionBlockTest, takes_biases_of_one_row_and_causal_ones) {
  if (!GetParam().takes_biases) GTEST_SKIP() << "takes no biases";
  AttentionBlock block = make_block(48, 48, at::kFloat);
  const at::Tensor allowed = (torch::arange(48) > 5).view({1, 1, 1, 48}).expand({2, 1, 1, 48}).clone();
  allowed[1].fill_(false);
  block.mask.empty_rows = allowed.any(3).logical_not();
  block.mask.bias = torch::zeros(allowed.sizes()).masked_fill_(allowed.logical_not(), masked);
  expect_block(GetParam(), block, 2e-6);
  // As the ring makes it.
  block.mask.bias = masking_bias(allowed, block.query, AttentionKernel::efficient);
  expect_block(GetParam(), block, 2e-6);
  const at::Tensor below = allowed.expand({2, 1, 48, 48}).tril();
  block.mask.causal = true;
  block.mask.empty_rows = below.any(3).logical_not();
  block.mask.bias = torch::zeros(below.sizes()).masked_fill_(below.logical_not(), masked);
  expect_block(GetParam(), block, 2e-6);
}

// As the ring takes them: some rows of the queries, stored as a whole.
TEST_P(AttentionBlockTest, halves_of_the_keys_merge_into_the_whole) {
  const at::ScalarType type = GetParam().types.front();
  const double tolerance = type == at::kDouble ? 1e-13 : tolerance_of(type);
  AttentionBlock block = make_block(41, 64, type);
  if (GetParam().takes_biases) add_bias(block);
  const AttentionRows whole = GetParam().forward(block);
  const auto wide = torch::TensorOptions(block_type(block.query));
  const AttentionRows merged{torch::zeros(whole.output.sizes(), wide), torch::full({2, 4, 41}, masked, wide)};
  std::vector<AttentionBlock> halves;
  for (const int64_t first : {0, 32}) {
    AttentionBlock half = block;
    half.key = block.key.narrow(2, first, 32);
    half.value = block.value.narrow(2, first, 32);
    if (GetParam().takes_biases) {
      half.mask.bias = block.mask.bias.narrow(3, first, 32);
      half.mask.empty_rows = (half.mask.bias == masked).all(3);
    }
    merge_rows(merged, GetParam().forward(half));
    halves.push_back(half);
  }
  EXPECT_LT(difference(merged.output, whole.output.to(at::kDouble)), tolerance);
  EXPECT_TRUE(at::allclose(merged.log_sum.to(at::kDouble), whole.log_sum.to(at::kDouble), 0, tolerance));

  const AttentionRows rows{merged.output.to(type), merged.log_sum.masked_fill(merged.log_sum == masked, 0)};
  const at::Tensor gradient = noise({2, 4, 41, 32}, type);
  const auto expected = GetParam().backward(block, {whole.output, rows.log_sum}, gradient);
  const auto rows_of = [](const at::Tensor& x) { return x.narrow(2, 20, 21); };
  at::Tensor sum = torch::zeros({2, 4, 21, 32}, at::kDouble);
  for (AttentionBlock half : halves) {
    half.query = rows_of(half.query);
    if (half.mask.bias.defined()) {
      half.mask.bias = rows_of(half.mask.bias);
      half.mask.empty_rows = rows_of(half.mask.empty_rows);
    }
    const AttentionRows some{rows_of(rows.output), rows_of(rows.log_sum)};
    sum += GetParam().backward(half, some, rows_of(gradient))[0];
  }
  EXPECT_LT(difference(sum, rows_of(expected[0]).to(at::kDouble)), tolerance);
}

const std::vector<at::ScalarType> all_types{at::kDouble, at::kFloat, at::kBFloat16, at::kHalf};
INSTANTIATE_TEST_SUITE_P(
    Kernels, AttentionBlockTest,
    testing::Values(
        Kernels{"cpu", attend_block, attend_block_backward, all_types},
        Kernels{"composed", compose_block, compose_block_backward, all_types},
        Kernels{
            "efficient", efficient_block, efficient_block_backward, {at::kFloat, at::kBFloat16, at::kHalf}},
        Kernels{
            "flash", flash_block, flash_block_backward, {at::kBFloat16, at::kHalf}, /*takes_biases=*/false}),
    [](const auto& parameter) { return std::string(parameter.param.name); });

TEST(AttentionKernels, are_chosen_by_device_type_head_size_and_bias) {
  const auto chosen = [](at::DeviceType device, at::ScalarType type, int64_t head_size, bool biased) {
    return choose_kernel({device, type, head_size, biased});
  };
  for (const at::ScalarType type : all_types) {
    for (const bool biased : {false, true})
      EXPECT_EQ(chosen(at::kCPU, type, 64, biased), AttentionKernel::cpu);
    EXPECT_EQ(chosen(at::kMPS, type, 64, false), AttentionKernel::composed);
  }
  for (const at::ScalarType type : {at::kBFloat16, at::kHalf}) {
    EXPECT_EQ(chosen(at::kCUDA, type, 64, false), AttentionKernel::flash);
    EXPECT_EQ(chosen(at::kCUDA, type, 256, false), AttentionKernel::flash);
    EXPECT_EQ(chosen(at::kCUDA, type, 264, false), AttentionKernel::efficient);
    EXPECT_EQ(chosen(at::kCUDA, type, 64, true), AttentionKernel::efficient);
    EXPECT_EQ(chosen(at::kCUDA, type, 60, false), AttentionKernel::composed);
  }
  EXPECT_EQ(chosen(at::kCUDA, at::kFloat, 64, false), AttentionKernel::efficient);
  EXPECT_EQ(chosen(at::kCUDA, at::kFloat, 20, true), AttentionKernel::efficient);
  EXPECT_EQ(chosen(at::kCUDA, at::kFloat, 10, true), AttentionKernel::composed);
  EXPECT_EQ(chosen(at::kCUDA, at::kDouble, 64, true), AttentionKernel::composed);
}

TEST(AttentionKernels, take_biases_aligned_and_expanded_without_a_copy) {
  const at::Tensor allowed = torch::rand({2, 1, 1, 37}) > 0.5,
                   query = torch::zeros({2, 4, 8, 32}, at::kBFloat16);
  const at::Tensor bias = masking_bias(allowed, query, AttentionKernel::efficient);
  EXPECT_EQ(bias.scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::equal(bias == 0, allowed));
  EXPECT_TRUE(at::equal(bias == masked, allowed.logical_not()));
  const at::Tensor as_it_is = aligned_bias(bias, at::kBFloat16, {2, 4, 8, 37});
  EXPECT_TRUE(as_it_is.is_alias_of(bias));
  const at::Tensor other = masking_bias(allowed, query, AttentionKernel::cpu);
  EXPECT_EQ(other.scalar_type(), at::kFloat);
  EXPECT_TRUE(other.is_contiguous());
  const at::Tensor copied = aligned_bias(other, at::kBFloat16, {2, 4, 8, 37});
  EXPECT_TRUE(at::equal(copied, as_it_is));
  EXPECT_EQ(copied.stride(1), 0);
  EXPECT_EQ(copied.stride(0) % 16, 0);
  const at::Tensor rows = aligned_bias(torch::rand({8, 37}), at::kFloat, {2, 4, 8, 37});
  EXPECT_EQ(rows.strides(), (at::IntArrayRef{0, 0, 48, 1}));
}

// Whole attention, forward and backward, as a model on a GPU calls it.
TEST(AttentionKernels, give_the_cpus_dense_attention) {
  const at::Tensor allowed = (torch::arange(27) < 21).view({1, 1, 1, 27});
  const at::Tensor bias = torch::zeros({2, 1, 1, 27}).masked_fill(allowed.logical_not(), masked);
  const auto expect_same = [](AttentionKernel kernel, at::ScalarType type, const at::Tensor& mask,
                              bool causal) {
    torch::manual_seed(4);
    std::vector<at::Tensor> x;
    for (int i = 0; i < 3; ++i) x.push_back(noise({2, 27, 4, 16}, type).transpose(1, 2).requires_grad_());
    const at::Tensor weights = noise({2, 4, 27, 16}, type);
    std::vector<at::Tensor> results;
    for (const AttentionKernel each : {kernel, AttentionKernel::cpu}) {
      const at::Tensor output = dense_attention(each, {x[0], x[1], x[2], mask, causal});
      results.push_back(output.detach());
      for (const at::Tensor& gradient : torch::autograd::grad({output}, x, {weights}))
        results.push_back(gradient);
    }
    for (size_t i = 0; i < 4; ++i)
      EXPECT_LT(difference(results[i], results[i + 4].to(at::kDouble)), tolerance_of(type)) << i;
  };
  for (const bool causal : {false, true}) {
    expect_same(AttentionKernel::flash, at::kBFloat16, {}, causal);
    expect_same(AttentionKernel::efficient, at::kFloat, {}, causal);
  }
  expect_same(AttentionKernel::efficient, at::kFloat, bias, false);
  expect_same(AttentionKernel::efficient, at::kFloat, allowed, false);
  expect_same(AttentionKernel::efficient, at::kBFloat16, bias.to(at::kBFloat16), false);
}

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
