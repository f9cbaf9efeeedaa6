// Attention over a divided sequence against attention over the whole, which every rank computes alone from
// the same query, key and value.
#include "parallel/context_attention.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/ranks/transports.h"

namespace tessera {
namespace {
constexpr int64_t whole_sequence = 48;  // equal zigzag chunks on 1 to 4 ranks

struct ContextCase {
  std::string name;
  ContextMethod method;
  bool causal;
  bool padding;
  bool documents;
};

/// The whole sequence, the same on every rank.
struct Whole {
  at::Tensor query, key, value, gradient;
  ContextAttentionOptions options;

  Whole(const ContextCase& given, at::ScalarType type, int64_t head_size, at::Device device) {
    torch::manual_seed(7);
    for (at::Tensor* each : {&query, &key, &value, &gradient})
      *each = torch::randn({2, 4, whole_sequence, head_size}, at::kDouble).to(device, type);
    options = {given.method, given.causal, {}, {}};
    const at::Tensor places = torch::arange(whole_sequence).expand({2, -1});
    // Sample 0 ends with padding, sample 1 starts with it: causal queries there have no key at all.
    if (given.padding) options.key_mask = torch::stack({places[0] < 37, places[1] >= 15}).to(device);
    // Boundaries in and between the chunks of ranks, and in sample 1 a document that comes back.
    if (given.documents)
      options.documents =
          torch::stack({places[0].floor_divide(9), places[1].floor_divide(5).remainder(3)}).to(device);
  }
};

/// softmax written out in float64, of whole sequences.
at::Tensor attend_plainly(const Whole& whole, const std::vector<at::Tensor>& inputs) {
  const int64_t sequence = inputs[0].size(2);
  const at::Tensor scores =
      at::matmul(inputs[0], inputs[1].transpose(2, 3)) / std::sqrt(static_cast<double>(inputs[0].size(3)));
  at::Tensor allowed = torch::ones({2, 1, sequence, sequence}, scores.options().dtype(at::kBool));
  const auto& options = whole.options;
  if (options.causal) allowed = allowed.tril();
  if (options.key_mask.defined()) allowed = allowed & options.key_mask.view({2, 1, 1, sequence});
  if (options.documents.defined())
    allowed = allowed & (options.documents.view({2, 1, -1, 1}) == options.documents.view({2, 1, 1, -1}));
  // exp(-1e300) is 0, and a row of equal scores has no NaN.
  return at::matmul(scores.masked_fill(~allowed, -1e300).softmax(3) * allowed, inputs[2]);
}

/// What this rank holds of `whole`, with strides as a joined projection leaves them.
at::Tensor mine(const at::Tensor& whole, const Communicator& world, bool zigzag) {
  const at::Tensor part = context_part(whole, 2, world.rank(), world.size(), zigzag);
  return part.transpose(1, 2).contiguous().transpose(1, 2);
}

double error_of(const at::Tensor& actual, const at::Tensor& expected, double scale) {
  if (!actual.isfinite().all().item<bool>()) return std::numeric_limits<double>::infinity();
  return (actual.to(at::kDouble) - expected).abs().max().item<double>() / scale;
}

class ContextAttention : public testing::TestWithParam<std::tuple<std::string, ContextCase>> {
 protected:
  void SetUp() override {
    world = make_test_communicator(std::get<0>(GetParam()));
    given = std::get<1>(GetParam());
    if (given.method == ContextMethod::ulysses && 4 % world.size() != 0)
      GTEST_SKIP() << "4 heads cannot be divided";
    zigzag = context_zigzag(given.method, given.causal);
  }

  void expect_whole(at::ScalarType type, int64_t head_size, double tolerance) const {
    const Whole whole(given, type, head_size, world.device());
    std::vector<at::Tensor> exact, local;
    for (const at::Tensor& each : {whole.query, whole.key, whole.value}) {
      exact.push_back(each.to(at::kDouble).detach().requires_grad_());
      local.push_back(mine(each, world, zigzag).requires_grad_());
    }
    const at::Tensor expected = attend_plainly(whole, exact);
    const auto gradients = torch::autograd::grad({expected}, exact, {whole.gradient.to(at::kDouble)});
    const at::Tensor actual = context_attention(local[0], local[1], local[2], world, whole.options);
    ASSERT_EQ(actual.scalar_type(), type);
    EXPECT_LT(error_of(actual, mine(expected, world, zigzag), expected.abs().max().item<double>()),
              tolerance);
    actual.backward(mine(whole.gradient, world, zigzag));
    for (size_t i = 0; i < 3; ++i) {
      const double scale = gradients[i].abs().max().item<double>();
      EXPECT_LT(error_of(local[i].grad(), mine(gradients[i], world, zigzag), scale), tolerance)
          << "gradient " << i << " of " << c10::toString(type) << " heads of " << head_size;
    }
  }

  Communicator world;
  ContextCase given;
  bool zigzag = false;
};

TEST_P(ContextAttention, equals_attention_over_the_whole_sequence) {
  for (const int64_t head_size : {8, 32}) {
    expect_whole(at::kDouble, head_size, 1e-10);
    expect_whole(at::kFloat, head_size, 2e-6);
    expect_whole(at::kBFloat16, head_size, 2e-2);  // probabilities and results have 8 bits
    expect_whole(at::kHalf, head_size, 2.5e-3);    // 11 bits
  }
}

// The derivative of the sum over all ranks of outputs times fixed numbers, where one element moves at a time.
TEST_P(ContextAttention, gradients_are_those_of_the_loss_summed_over_ranks) {
  const Whole whole(given, at::kDouble, 8, world.device());
  const at::Tensor weights = mine(whole.gradient, world, zigzag);
  const auto loss = [&](const std::vector<at::Tensor>& inputs) {
    const at::NoGradGuard no_grad;
    const at::Tensor sum =
        (context_attention(inputs[0], inputs[1], inputs[2], world, whole.options) * weights).sum();
    world.all_reduce(sum);
    return sum.item<double>();
  };
  std::vector<at::Tensor> local;
  for (const at::Tensor& each : {whole.query, whole.key, whole.value})
    local.push_back(mine(each, world, zigzag).requires_grad_());
  context_attention(local[0], local[1], local[2], world, whole.options).backward(weights);
  const int64_t length = whole_sequence / world.size();
  for (int owner = 0; owner < world.size(); ++owner) {
    for (int probe = 0; probe < 12; ++probe) {
      const int64_t input = probe % 3, row = (probe * 5 + 1) % length;
      const at::Tensor place = local[input][probe % 2][probe % 4][row];
      std::array<double, 2> losses{};
      for (const int side : {0, 1}) {
        std::vector<at::Tensor> moved;
        for (const at::Tensor& each : local) moved.push_back(each.detach().clone());
        if (owner == world.rank()) moved[input][probe % 2][probe % 4][row][3] += side == 0 ? 1e-5 : -1e-5;
        losses[side] = loss(moved);
      }
      if (owner != world.rank()) continue;
      const double analytic = local[input].grad()[probe % 2][probe % 4][row][3].item<double>();
      EXPECT_NEAR(analytic, (losses[0] - losses[1]) / 2e-5, 1e-8) << "input " << input << " row " << row;
    }
  }
}

TEST_P(ContextAttention, repeats_bit_by_bit_and_takes_unused_outputs) {
  const Whole whole(given, at::kFloat, 32, world.device());
  std::vector<at::Tensor> results;
  for (int i = 0; i < 2; ++i) {
    std::vector<at::Tensor> local;
    for (const at::Tensor& each : {whole.query, whole.key, whole.value})
      local.push_back(mine(each, world, zigzag).requires_grad_());
    const at::Tensor output = context_attention(local[0], local[1], local[2], world, whole.options);
    // A gradient without strides, and none for the last: a frozen projection.
    const auto gradients = torch::autograd::grad({output.sum()}, {local[0], local[1]});
    results.insert(results.end(), {output.detach(), gradients[0], gradients[1]});
  }
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(at::equal(results[i], results[i + 3]));
}

std::vector<ContextCase> context_cases() {
  std::vector<ContextCase> cases;
  for (const auto method : {ContextMethod::ring, ContextMethod::ulysses}) {
    for (const bool causal : {true, false}) {
      const std::string name = std::string(method == ContextMethod::ring ? "ring" : "ulysses") +
                               (causal ? "_causal" : "_bidirectional");
      cases.push_back({name, method, causal, false, false});
      cases.push_back({name + "_padding", method, causal, true, false});
      cases.push_back({name + "_documents", method, causal, false, true});
      cases.push_back({name + "_both", method, causal, true, true});
    }
  }
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Cases, ContextAttention,
                         testing::Combine(testing::ValuesIn(test_transports()),
                                          testing::ValuesIn(context_cases())),
                         [](const auto& parameter) {
                           return std::get<0>(parameter.param) + "_" + std::get<1>(parameter.param).name;
                         });

TEST(ContextAttentionAlone, is_dense_attention) {
  torch::manual_seed(3);
  const at::Tensor query = torch::randn({2, 4, 9, 8}), key = torch::randn({2, 4, 9, 8}),
                   value = torch::randn({2, 4, 9, 8});
  for (const auto method : {ContextMethod::ring, ContextMethod::ulysses}) {
    for (const bool causal : {false, true}) {
      EXPECT_TRUE(at::equal(context_attention(query, key, value, Communicator(), {method, causal, {}, {}}),
                            at::scaled_dot_product_attention(query, key, value, {}, 0.0, causal)));
    }
  }
}

TEST(ContextAttentionMistakes, are_refused_before_anything_is_sent) {
  const Communicator& world = test_world().communicator();
  const int size = world.size();
  const at::Tensor x = torch::zeros({1, 4, 2, 8}), odd = torch::zeros({1, 4, 3, 8});
  const at::Tensor heads = torch::zeros({1, 4 * size + 1, 2, 8});
  const auto attend = [&](const at::Tensor& all, const ContextAttentionOptions& options) {
    return context_attention(all, all, all, world, options);
  };
  EXPECT_THROW(attend(x, {ContextMethod::ring, false, torch::ones({1, 2 * size + 1}, at::kBool), {}}),
               std::logic_error);
  EXPECT_THROW(attend(x, {ContextMethod::ring, false, torch::ones({1, 2 * size}, at::kLong), {}}),
               std::logic_error);
  EXPECT_THROW(context_attention(x, odd, x, world, {}), std::logic_error);
  EXPECT_THROW(context_attention(x, x.to(at::kDouble), x, world, {}), std::logic_error);
  if (size == 1) return;
  EXPECT_THROW(attend(heads, {ContextMethod::ulysses, false, {}, {}}), std::logic_error);
  EXPECT_THROW(attend(odd, {ContextMethod::ring, true, {}, {}}), std::logic_error);
}
}  // namespace
}  // namespace tessera
