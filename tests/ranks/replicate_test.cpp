// Replicate against gradients computed without it: each rank works on its own samples, and the expected sum
// over all samples is computed on every rank alone.
#include "parallel/replicate.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/ranks/world.h"

namespace tessera {
namespace {

/// Three layers, of which the last is used by even ranks only, a frozen one, one that nobody uses, and a tied
/// weight.
struct Net : torch::nn::Module {
  explicit Net(at::ScalarType type) {
    torch::manual_seed(1);
    first = register_module("first", torch::nn::Linear(13, 31));
    second = register_module("second", torch::nn::Linear(31, 31));
    sometimes = register_module("sometimes", torch::nn::Linear(31, 31));
    frozen = register_module("frozen", torch::nn::Linear(31, 31));
    never = register_module("never", torch::nn::Linear(31, 31));
    tied = register_parameter("tied", second->weight);
    to(type);
    second->weight = second->parameters(false)[0];
    for (auto& parameter : frozen->parameters()) parameter.set_requires_grad(false);
  }
  torch::Tensor forward(const torch::Tensor& input, bool use_sometimes) {
    torch::Tensor hidden = torch::tanh(first->forward(input));
    hidden = torch::linear(torch::tanh(second->forward(hidden)), second->weight);
    hidden = frozen->forward(hidden);
    if (use_sometimes) hidden = hidden + sometimes->forward(hidden);
    return hidden.pow(2).sum(at::kFloat);
  }
  torch::nn::Linear first{nullptr}, second{nullptr}, sometimes{nullptr}, frozen{nullptr}, never{nullptr};
  torch::Tensor tied;
};

std::vector<NamedParameter> named(const torch::nn::Module& module) {
  std::vector<NamedParameter> list;
  for (const auto& item : module.named_parameters()) list.push_back({item.key(), item.value()});
  return list;
}

struct Case {
  at::ScalarType type;
  int64_t bucket_bytes;
  int micro_steps;
  at::ScalarType reduce = at::ScalarType::Undefined;
};

class ReplicateTest : public testing::TestWithParam<Case> {};

torch::Tensor samples(int step, int micro_step, int rank, at::ScalarType type) {
  const auto first = static_cast<float>(step * 1000 + micro_step * 100 + rank * 10);
  return torch::sin(torch::arange(5 * 13, torch::kFloat) * 0.7f + first).view({5, 13}).to(type);
}

TEST_P(ReplicateTest, sums_over_micro_steps_and_ranks) {
  const Case& given = GetParam();
  const Communicator& world = test_world().communicator();
  Net net(given.type);
  Net reference(at::kDouble);  // the same seed, hence the same values but for rounding
  for (size_t i = 0; i < net.parameters().size(); ++i) {
    const torch::NoGradGuard no_grad;
    reference.parameters()[i].copy_(net.parameters()[i]);
  }
  Replicate replicate(named(net), world, {given.bucket_bytes, given.reduce, true});
  for (int step = 0; step < 3; ++step) {
    replicate.begin_step();
    reference.zero_grad();
    for (int micro_step = 0; micro_step < given.micro_steps; ++micro_step) {
      replicate.begin_micro_step(micro_step + 1 == given.micro_steps);
      // Only even ranks use it, and in the second step nobody: buckets must not wait for it.
      const auto uses = [&](int rank) { return rank % 2 == 0 && step != 1; };
      net.forward(samples(step, micro_step, world.rank(), given.type), uses(world.rank())).backward();
      for (int rank = 0; rank < world.size(); ++rank) {
        reference.forward(samples(step, micro_step, rank, given.type).to(at::kDouble), uses(rank)).backward();
      }
    }
    const auto gradients = replicate.finish();
    ASSERT_EQ(gradients.size(), replicate.parameters().size());
    for (size_t i = 0; i < gradients.size(); ++i) {
      const std::string& name = replicate.parameters()[i].name;
      EXPECT_EQ(name.find("frozen"), std::string::npos);
      const torch::Tensor expected = reference.named_parameters()[name].grad();
      const bool used = name.find("never") == std::string::npos &&
                        (name.find("sometimes") == std::string::npos || step != 1);
      ASSERT_EQ(gradients[i].defined(), used) << name << " in step " << step;
      if (!used) continue;
      const double scale = expected.abs().max().item<double>() + 1e-12;
      const double worst = (gradients[i].to(at::kDouble) - expected).abs().max().item<double>() / scale;
      EXPECT_LT(worst, given.type == at::kFloat ? 3e-6 : 6e-2) << name << " in step " << step;
      EXPECT_FALSE(replicate.parameters()[i].tensor.grad().defined());
    }
  }
  EXPECT_EQ(replicate.parameters().size(), 8u);  // four used or unused layers; the tied weight once
}

INSTANTIATE_TEST_SUITE_P(Cases, ReplicateTest,
                         testing::Values(Case{at::kFloat, 1, 1}, Case{at::kFloat, 5000, 1},
                                         Case{at::kFloat, 1 << 20, 3}, Case{at::kFloat, 5000, 4},
                                         Case{at::kBFloat16, 5000, 1}, Case{at::kBFloat16, 1 << 20, 4},
                                         Case{at::kBFloat16, 5000, 4, at::kBFloat16}));

TEST(ReplicateTypes, sixteen_bit_gradients_accumulate_in_float32) {
  const auto weight = torch::zeros({64}, torch::kBFloat16).set_requires_grad(true);
  Replicate replicate({{"weight", weight}}, test_world().communicator());
  replicate.begin_step();
  for (int i = 0; i < 300; ++i) {  // in bfloat16, 256 + 1 = 256
    replicate.begin_micro_step(i == 299);
    weight.sum().backward();
  }
  const auto gradients = replicate.finish();
  EXPECT_EQ(gradients[0].scalar_type(), at::kFloat);
  EXPECT_TRUE(at::equal(gradients[0], torch::full({64}, 300.0f * static_cast<float>(test_world().size()))));
}

TEST(ReplicateAlone, returns_the_gradients_of_autograd_themselves) {
  const auto weight = torch::ones({64}).set_requires_grad(true);
  Replicate replicate({{"weight", weight}, {"tied", weight}}, Communicator());
  replicate.begin_step();
  replicate.begin_micro_step(true);
  (weight * 2).sum().backward();
  const void* data = weight.grad().data_ptr();
  const auto gradients = replicate.finish();
  ASSERT_EQ(gradients.size(), 1u);
  EXPECT_EQ(gradients[0].data_ptr(), data);
  EXPECT_FALSE(weight.grad().defined());
}

/// Sleeps in backward, as a slow layer would compute.
struct SlowBackward : torch::autograd::Function<SlowBackward> {
  static torch::Tensor forward(torch::autograd::AutogradContext*, const torch::Tensor& input) {
    return input.clone();
  }
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext*,
                                               torch::autograd::tensor_list grads) {
    std::this_thread::sleep_for(std::chrono::milliseconds(40));
    return grads;
  }
};

TEST(ReplicateOverlap, all_reduces_run_while_backward_computes) {
  const Communicator& world = test_world().communicator();
  if (world.size() == 1) GTEST_SKIP() << "needs two ranks";
  constexpr int layers = 6;
  std::vector<NamedParameter> weights;
  for (int i = 0; i < layers; ++i) {
    weights.push_back({std::to_string(i), torch::ones({1 << 20}).set_requires_grad(true)});
  }
  Replicate replicate(weights, world, {4 << 20});
  for (int step = 0; step < 3; ++step) {
    replicate.begin_step();
    replicate.begin_micro_step(true);
    torch::Tensor hidden = torch::ones({1 << 20});
    for (const auto& weight : weights) hidden = SlowBackward::apply(hidden * weight.tensor);
    hidden.sum().backward();
    world.barrier();
    replicate.finish();
  }
  const auto statistics = replicate.statistics();
  ASSERT_EQ(statistics.size(), static_cast<size_t>(layers));
  double total = 0;
  double exposed = 0;
  for (size_t i = 0; i < statistics.size(); ++i) {
    EXPECT_EQ(statistics[i].bytes, 4 << 20);
    EXPECT_GT(statistics[i].seconds, 0);
    total += statistics[i].seconds;
    if (i + 1 < statistics.size()) exposed += statistics[i].exposed;  // nothing can hide the last
  }
  if (world.rank() == 0)
    printf("all-reduces took %.1f ms, of which %.1f ms exposed\n", total * 1e3, exposed * 1e3);
  EXPECT_LT(exposed, 0.5 * total);
}
}  // namespace
}  // namespace tessera
