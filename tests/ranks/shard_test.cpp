// Shard against gradients computed without it: each rank works on its own samples, and the gradients of all
// are computed on every rank alone and added in float64.
#include "parallel/shard.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "tests/ranks/operator_counts.h"
#include "tests/ranks/shard_net.h"
#include "tests/ranks/world.h"

namespace tessera {
namespace {

struct ShardTypes {
  const char* name;
  at::ScalarType working, reduce;
  double tolerance;  // of sums, relative to the addends
};
constexpr ShardTypes shard_types[] = {{"fp32", at::kFloat, at::ScalarType::Undefined, 3e-6},
                                      {"bf16", at::kBFloat16, at::ScalarType::Undefined, 1e-2},
                                      {"bf16_reduced_in_bf16", at::kBFloat16, at::kBFloat16, 6e-2}};

struct ShardGroups {
  Communicator shard, replicas;
};

/// All ranks shard, or with four of them two pairs do. Made once: groups are numbered.
const ShardGroups& shard_groups(bool replicas) {
  const Communicator& world = test_world().communicator();
  static const ShardGroups pairs{world.split(world.rank() / 2, world.rank()),
                                 world.split(world.rank() % 2, world.rank())};
  static const ShardGroups all{world, Communicator()};
  return replicas ? pairs : all;
}

ShardOptions shard_options(const ShardTypes& chosen, const ShardGroups& groups) {
  ShardOptions options;
  options.working = chosen.working;
  options.reduce_dtype = chosen.reduce;
  options.shard = groups.shard;
  options.replicas = groups.replicas;
  options.host = test_world().communicator();
  return options;
}

at::Tensor tokens_of(int step, int micro_step, int rank) {
  return (torch::arange(11, torch::kLong) * (3 + rank) + step * 5 + micro_step * 7)
      .remainder(ShardNet::words);
}

/// A net whose memory is Shard's, and one that has its own.
struct ShardPair {
  ShardPair(const std::set<std::string>& frozen, const ShardOptions& options)
      : net(frozen), reference(frozen), shard(net.parameters, options) {
    for (size_t i = 0; i < net.parameters.size(); ++i) {
      const torch::NoGradGuard no_grad;
      at::Tensor& tensor = reference.parameters[i].tensor;
      tensor.set_data(tensor.to(options.working));
      masters.push_back(tensor.to(at::kDouble));
      const auto& part = shard.parts()[i];
      part.master.copy_(rows(tensor, part).view_as(part.master));
      part.working.copy_(part.master);
    }
    shard.parameters_loaded();
  }

  static at::Tensor rows(const at::Tensor& whole, const Shard::Part& part) {
    const at::Tensor values = whole.dim() == 0 ? whole.detach().view({1}) : whole.detach();
    return values.narrow(0, part.first_row, part.working.dim() == 0 ? 1 : part.working.size(0));
  }

  bool used(const std::string& name, int step) const {
    if (name.find("never") != std::string::npos) return false;
    return name.find("sometimes") == std::string::npos || step != 1;
  }

  /// Forward and backward of a whole step, here and in the reference; returns what finish() does.
  std::vector<at::Tensor> step(int number, int micro_steps) {
    const Communicator& world = test_world().communicator();
    // Only even ranks use it, and in the second step nobody.
    const auto uses = [&](int rank) { return rank % 2 == 0 && number != 1; };
    shard.begin_step();
    sums.assign(masters.size(), {});
    sizes.assign(masters.size(), 1e-12);
    for (int i = 0; i < micro_steps; ++i) {
      shard.begin_micro_step(i + 1 == micro_steps);
      net.loss(tokens_of(number, i, world.rank()), uses(world.rank()), &shard).backward();
      shard.end_micro_step();
      for (int rank = 0; rank < world.size(); ++rank) {
        reference.loss(tokens_of(number, i, rank), uses(rank), nullptr).backward();
        take_gradients();
      }
    }
    return shard.finish();
  }

  void take_gradients() {
    for (size_t i = 0; i < sums.size(); ++i) {
      at::Tensor& gradient = reference.parameters[i].tensor.mutable_grad();
      if (!gradient.defined()) continue;
      const at::Tensor addend = gradient.to(at::kDouble);
      sums[i] = sums[i].defined() ? sums[i] + addend : addend;
      sizes[i] += addend.abs().max().item<double>();
      gradient.reset();
    }
  }

  void expect_gradients(const std::vector<at::Tensor>& gradients, int step, double tolerance) const {
    size_t next = 0;
    for (size_t i = 0; i < net.parameters.size(); ++i) {
      const std::string& name = net.parameters[i].name;
      if (!net.parameters[i].tensor.requires_grad()) continue;
      ASSERT_LT(next, gradients.size());
      const at::Tensor& found = gradients[next++];
      EXPECT_FALSE(net.parameters[i].tensor.grad().defined()) << name;
      ASSERT_EQ(found.defined(), used(name, step)) << name << " in step " << step;
      if (!found.defined()) continue;
      const at::Tensor expected = rows(sums[i], shard.parts()[i]);
      ASSERT_EQ(found.sizes(), shard.parts()[i].working.sizes()) << name;
      EXPECT_EQ(found.scalar_type(), at::kFloat);
      if (found.numel() == 0) continue;
      EXPECT_LT((found.to(at::kDouble) - expected.view_as(found)).abs().max().item<double>() / sizes[i],
                tolerance)
          << name << " in step " << step;
    }
    EXPECT_EQ(next, gradients.size());
  }

  /// A step of gradient descent, of the reference with gradients of its own.
  void descend(const std::vector<at::Tensor>& gradients) {
    const torch::NoGradGuard no_grad;
    constexpr double rate = 1e-3;
    size_t next = 0;
    for (size_t i = 0; i < net.parameters.size(); ++i) {
      if (!net.parameters[i].tensor.requires_grad()) continue;
      const auto& part = shard.parts()[i];
      if (const at::Tensor& gradient = gradients[next++]; gradient.defined()) {
        part.master.sub_(gradient, rate);
        part.working.copy_(part.master);
        masters[i].sub_(sums[i], rate);
        reference.parameters[i].tensor.copy_(masters[i]);
      }
    }
    shard.parameters_changed();
  }

  void expect_parameters(double tolerance) const {
    for (size_t i = 0; i < net.parameters.size(); ++i) {
      const auto& part = shard.parts()[i];
      const at::Tensor difference = part.master.to(at::kDouble) - rows(masters[i], part).view_as(part.master);
      if (difference.numel() == 0) continue;
      EXPECT_LT(difference.abs().max().item<double>(), tolerance) << net.parameters[i].name;
    }
  }

  /// Forward without gradients sees the values of the masters.
  void expect_evaluation(double tolerance) {
    const torch::NoGradGuard no_grad;
    const at::Tensor tokens = tokens_of(9, 9, 0);
    const double found = net.loss(tokens, true, &shard).item<double>();
    const double expected = reference.loss(tokens, true, nullptr).item<double>();
    EXPECT_NEAR(found / expected, 1, tolerance);
  }

  /// The blocks whose parameters are in memory.
  std::set<size_t> placed() const {
    std::set<size_t> units;
    for (const auto& parameter : net.parameters) {
      if (parameter.unit > 0 && parameter.tensor.storage().data() != nullptr) units.insert(parameter.unit);
    }
    return units;
  }

  ShardNet net, reference;
  std::vector<at::Tensor> masters, sums;  // of the reference, in float64
  std::vector<double> sizes;              // of the addends of `sums`, which may cancel
  Shard shard;
};

class ShardTest : public testing::TestWithParam<std::tuple<int, int, int, int, bool>> {};

TEST_P(ShardTest, sums_over_micro_steps_and_ranks_and_steps_parts) {
  const auto [zero, prefetch, micro_steps, type, replicas] = GetParam();
  if (replicas && test_world().size() != 4) GTEST_SKIP() << "needs four ranks";
  const ShardTypes& chosen = shard_types[type];
  ShardOptions options = shard_options(chosen, shard_groups(replicas));
  options.zero = zero;
  options.prefetch = prefetch;
  ShardPair pair({"block2", "block3.in", "block4.pair"}, options);
  if (zero == 3) {
    pair.net.watch = [&](size_t unit) { EXPECT_EQ(pair.placed(), std::set<size_t>{unit}); };
  }
  for (int step = 0; step < 3; ++step) {
    const auto gradients = pair.step(step, micro_steps);
    pair.expect_gradients(gradients, step, chosen.tolerance);
    EXPECT_TRUE(zero < 3 || pair.placed().empty());
    pair.descend(gradients);
    pair.expect_parameters(chosen.reduce == at::kBFloat16 ? 1e-3 : 1e-6);
    if (step != 1) pair.expect_evaluation(chosen.working == at::kFloat ? 1e-5 : 6e-2);
    EXPECT_TRUE(zero < 3 || pair.placed().empty());
  }
}

std::string case_name(const testing::TestParamInfo<ShardTest::ParamType>& info) {
  return fmt::format("zero_{}_prefetch_{}_micro_steps_{}_{}{}", std::get<0>(info.param),
                     std::get<1>(info.param), std::get<2>(info.param),
                     shard_types[std::get<3>(info.param)].name, std::get<4>(info.param) ? "_replicas" : "");
}

INSTANTIATE_TEST_SUITE_P(Cases, ShardTest,
                         testing::Combine(testing::Values(1, 2, 3), testing::Values(0, 1, 2),
                                          testing::Values(1, 3), testing::Values(0, 1, 2), testing::Bool()),
                         case_name);

class ShardStage : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Stages, ShardStage, testing::Values(1, 2, 3));

TEST_P(ShardStage, blocks_below_the_first_trainable_one_have_no_backward) {
  for (const int prefetch : {0, 1, 2}) {
    ShardOptions options = shard_options(shard_types[0], shard_groups(false));
    options.zero = GetParam();
    options.prefetch = prefetch;
    // The hidden states before block 3 need no gradient, and ranks use different parameters of it.
    ShardPair pair({"words", "scale", "block1", "block2"}, options);
    for (int step = 0; step < 3; ++step) {
      const auto gradients = pair.step(step, 2);
      pair.expect_gradients(gradients, step, 3e-6);
      pair.descend(gradients);
      pair.expect_evaluation(1e-5);
    }
  }
}

TEST_P(ShardStage, the_embedding_alone_is_trained) {
  ShardOptions options = shard_options(shard_types[0], shard_groups(false));
  options.zero = GetParam();
  ShardPair pair({"block1", "block2", "block3", "block4"}, options);
  for (int step = 0; step < 3; ++step) {
    const auto gradients = pair.step(step, 3);
    pair.expect_gradients(gradients, step, 3e-6);
    pair.descend(gradients);
  }
}

// As around an evaluation of averaged weights.
TEST_P(ShardStage, values_may_change_twice_before_they_are_used) {
  ShardOptions options = shard_options(shard_types[0], shard_groups(false));
  options.zero = GetParam();
  options.prefetch = 2;
  ShardPair pair({"block2"}, options);
  const torch::NoGradGuard no_grad;
  for (const double factor : {0.5, 4.0, 0.5}) {
    for (size_t i = 0; i < pair.net.parameters.size(); ++i) {
      pair.shard.parts()[i].working.mul_(factor);
      pair.reference.parameters[i].tensor.mul_(factor);
    }
    pair.shard.parameters_loaded();
  }
  pair.expect_evaluation(1e-5);
}

TEST_P(ShardStage, may_end_while_messages_are_under_way) {
  for (int i = 0; i < 5; ++i) {
    ShardOptions options = shard_options(shard_types[0], shard_groups(false));
    options.zero = GetParam();
    options.prefetch = 2;
    ShardPair pair({}, options);
    if (i % 2 == 0) pair.step(0, 2), pair.shard.parameters_changed();
  }
  const at::Tensor one = at::ones({1});
  test_world().communicator().all_reduce(one);
  EXPECT_EQ(one.item<float>(), static_cast<float>(test_world().size()));
}

// Autograd's own, where it keeps gradients.
int copies_of_net_alone(const at::Tensor& tokens) {
  const ShardNet net({});
  const OperatorCounts calls;
  net.loss(tokens, true, nullptr).backward();
  return calls["aten::copy_"];
}

// On a GPU each call is a kernel: as many as there are messages, whatever the members and the ranks.
TEST(Shard, moves_each_message_with_one_call) {
  if (test_world().size() == 1) GTEST_SKIP() << "one rank's messages are copies themselves";
  for (const int type : {0, 1}) {
    ShardOptions options = shard_options(shard_types[type], shard_groups(false));
    options.prefetch = 0;
    ShardPair pair({}, options);
    constexpr int units = ShardNet::num_blocks + 1;
    constexpr int gathers = units + ShardNet::num_blocks - 1;  // the last block stays for its backward
    const at::Tensor tokens = tokens_of(0, 0, test_world().communicator().rank());
    const int own = copies_of_net_alone(tokens);
    pair.shard.begin_step();
    pair.shard.begin_micro_step(true);
    const OperatorCounts calls;
    pair.net.loss(tokens, true, &pair.shard).backward();
    pair.shard.end_micro_step();
    EXPECT_EQ(calls["aten::_foreach_copy_"], gathers + units);
    EXPECT_LE(calls["aten::_foreach_zero_"], units);
    const int copies = calls["aten::copy_"], zeros = calls["aten::zero_"];
    EXPECT_EQ(copies, own + units - 1);  // sums that have arrived; the last is still under way
    EXPECT_EQ(zeros, 0);
  }
}

// Stage 1 adds its micro-steps up.
TEST(Shard, adds_each_micro_step_with_one_call) {
  for (const int type : {0, 1}) {
    ShardOptions options = shard_options(shard_types[type], shard_groups(false));
    options.zero = 1;
    ShardPair pair({}, options);
    pair.shard.begin_step();
    for (int i = 0; i < 2; ++i) {
      pair.shard.begin_micro_step(false);
      const at::Tensor tokens = tokens_of(0, i, 0);
      const int own = copies_of_net_alone(tokens);
      const OperatorCounts calls;
      pair.net.loss(tokens, true, &pair.shard).backward();
      pair.shard.end_micro_step();
      constexpr int units = ShardNet::num_blocks + 1;
      const int packs = calls["aten::_foreach_copy_"] - (i == 0 ? units : 0);  // gathered once
      EXPECT_EQ(packs, i == 0 || type == 1 ? units : 0);  // of bf16 it makes copies to add
      EXPECT_EQ(calls["aten::_foreach_add_"], i == 0 ? 0 : units);
      EXPECT_EQ(calls["aten::copy_"] + calls["aten::zero_"], own);
    }
  }
}

}  // namespace
}  // namespace tessera
