#include "trainer/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "recipes/error.h"
#include "trainer/average.h"
#include "trainer/gradients.h"
#include "trainer/loss_scale.h"
#include "trainer/optimizers/adamw.h"

namespace tessera {
namespace {

/// An embedding whose weight is the output projection's too, a norm, and a frozen matrix.
struct TiedModel : torch::nn::Module {
  struct Head : torch::nn::Module {
    explicit Head(const at::Tensor& shared)
        : weight(register_parameter("weight", shared)), bias(register_parameter("bias", torch::randn(11))) {}
    at::Tensor weight, bias;
  };
  TiedModel() {
    embedding = register_module("embedding", torch::nn::Embedding(11, 6));
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({6})));
    head = register_module("head", std::make_shared<Head>(embedding->weight));
    frozen = register_parameter("frozen", torch::ones({2, 2}), /*requires_grad=*/false);
  }
  at::Tensor loss() {
    const at::Tensor ids = torch::arange(11);
    const at::Tensor hidden = norm(embedding(ids).to(norm->weight.scalar_type()));
    return torch::nn::functional::cross_entropy(at::linear(hidden, head->weight, head->bias).to(at::kFloat),
                                                ids);
  }
  torch::nn::Embedding embedding{nullptr};
  torch::nn::LayerNorm norm{nullptr};
  std::shared_ptr<Head> head;
  at::Tensor frozen;
};

std::vector<at::Tensor> gradients_of(const std::vector<Parameter>& parameters) {
  std::vector<at::Tensor> gradients;
  for (const auto& parameter : parameters) gradients.push_back(parameter.working.grad());
  return gradients;
}

std::vector<std::string> names_of(const std::vector<Parameter>& parameters) {
  std::vector<std::string> names;
  for (const auto& parameter : parameters) names.push_back(parameter.name);
  return names;
}

TEST(Parameters, TiedOnceFrozenNever) {
  TiedModel model;
  EXPECT_THAT(names_of(collect_parameters(model)),
              testing::ElementsAre("embedding.weight", "norm.weight", "norm.bias", "head.bias"));
}

TEST(Parameters, NormsAndBiasesDoNotDecay) {
  TiedModel model;
  std::vector<double> decays;
  for (const auto& parameter : collect_parameters(model)) decays.push_back(parameter.weight_decay_scale);
  EXPECT_THAT(decays, testing::ElementsAre(1, 0, 0, 0));
}

TEST(Parameters, LowPrecisionKeepsTiesAndFloatMasters) {
  TiedModel model;
  const at::Tensor before = model.embedding->weight.detach().clone();
  const auto parameters = collect_parameters(model, at::kBFloat16);
  EXPECT_EQ(model.embedding->weight.scalar_type(), at::kBFloat16);
  EXPECT_EQ(model.head->weight.data_ptr(), model.embedding->weight.data_ptr());
  EXPECT_TRUE(model.embedding->weight.requires_grad());
  EXPECT_TRUE(torch::equal(parameters[0].master, before));
  EXPECT_TRUE(torch::equal(parameters[0].working.detach(), before.to(at::kBFloat16)));
}

TEST(Parameters, LastMatchingGroupDecides) {
  TiedModel model;
  auto parameters = collect_parameters(model);
  apply_groups(parameters, {{"*", 0.5, 1}, {"norm.*", 2, 0}});
  EXPECT_EQ(parameters[0].learning_rate_scale, 0.5);
  EXPECT_EQ(parameters[1].learning_rate_scale, 2);
  EXPECT_EQ(parameters[3].weight_decay_scale, 1);
}

TEST(Parameters, GroupThatMatchesNothingIsAMistake) {
  TiedModel model;
  auto parameters = collect_parameters(model);
  try {
    apply_groups(parameters, {{"embeding.weight", 1, 1}});
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("'embeding.weight'"));
    EXPECT_THAT(error.what(), testing::HasSubstr("'embedding.weight'"));
  }
}

TEST(Optimizer, LearnsWithLowPrecisionCopies) {
  TiedModel model;
  const auto parameters = collect_parameters(model, at::kBFloat16);
  Adamw optimizer(parameters, {});
  const float before = model.loss().item<float>();
  for (int step = 0; step < 30; ++step) {
    model.zero_grad();
    model.loss().backward();
    optimizer.step(0.01, gradients_of(parameters));
  }
  EXPECT_LT(model.loss().item<float>(), 0.5 * before);
  EXPECT_EQ(optimizer.num_steps(), 30);
}

TEST(Optimizer, RatesOfGroupsScale) {
  const at::Tensor gradient = torch::randn({40});
  std::vector<Parameter> parameters;
  for (const double scale : {1.0, 0.5}) {
    const at::Tensor value = torch::zeros({40});
    parameters.push_back({"p", value, value, scale, 0});
  }
  for (const bool aten : {false, true}) {
    for (const auto& parameter : parameters) parameter.master.zero_();
    Adamw optimizer(parameters, {});
    optimizer.use_aten(aten);
    optimizer.step(0.1, {gradient, gradient});
    EXPECT_TRUE(torch::allclose(parameters[0].master, 2 * parameters[1].master));
    EXPECT_GT(parameters[0].master.abs().max().item<float>(), 0.09);
  }
}

TEST(Optimizer, UndefinedGradientLeavesAlone) {
  const at::Tensor a = torch::ones({5}), b = torch::ones({5});
  Adamw optimizer({{"a", a, a}, {"b", b, b}}, {});
  optimizer.step(0.1, {at::Tensor(), torch::ones({5})});
  EXPECT_TRUE(torch::equal(a, torch::ones({5})));
  EXPECT_FALSE(torch::equal(b, torch::ones({5})));
}

TEST(Optimizer, NotFiniteScaleChangesNothing) {
  for (const bool aten : {false, true}) {
    const at::Tensor value = torch::randn({100}), kept = value.clone();
    Adamw optimizer({{"p", value, value}}, {});
    optimizer.use_aten(aten);
    const auto scale = scale_and_clip(global_norm({torch::full({100}, INFINITY)}), {}, 1.0);
    optimizer.step(0.1, {torch::full({100}, INFINITY)}, scale.factor);
    EXPECT_TRUE(torch::equal(value, kept));
    EXPECT_EQ(optimizer.num_steps(), 0);
    for (const auto& piece : optimizer.state()) {
      EXPECT_EQ(piece.local.abs().max().item<float>(), 0) << piece.name;
    }
  }
}

TEST(Optimizer, StateContinuesBitForBit) {
  const auto gradient = [](int step) { return torch::sin(torch::arange(5000) * 0.1 * (step + 1)); };
  const at::Tensor whole = torch::ones({5000}), half = torch::ones({5000});
  Adamw first({{"p", whole, whole}}, {}), second({{"p", half, half}}, {}), third({{"p", half, half}}, {});
  for (int step = 0; step < 10; ++step) first.step(0.01, {gradient(step)});
  for (int step = 0; step < 5; ++step) second.step(0.01, {gradient(step)});
  for (size_t i = 0; i < third.state().size(); ++i) third.state()[i].local.copy_(second.state()[i].local);
  third.set_num_steps(second.num_steps());
  for (int step = 5; step < 10; ++step) third.step(0.01, {gradient(step)});
  EXPECT_TRUE(torch::equal(whole, half));
  EXPECT_EQ(third.state()[0].name, "exp_avg/p");
}

TEST(Gradients, NormOfAllTypes) {
  const std::vector<at::Tensor> gradients = {torch::randn({3, 7001}), at::Tensor(),
                                             torch::randn({50000}).to(at::kBFloat16),
                                             torch::randn({17}).to(at::kHalf), torch::empty({0})};
  double sum = 0;
  for (const auto& gradient : gradients) {
    if (gradient.defined()) sum += gradient.to(at::kDouble).square().sum().item<double>();
  }
  EXPECT_NEAR(global_norm(gradients).item<float>(), std::sqrt(sum), 1e-5 * std::sqrt(sum));
  EXPECT_EQ(global_norm({}).item<float>(), 0);
}

TEST(Gradients, ClipsAboveOnly) {
  const at::Tensor norm = torch::tensor(8.0F);
  EXPECT_NEAR(scale_and_clip(norm, {}, 2).factor.item<float>(), 0.25, 1e-6);
  EXPECT_EQ(scale_and_clip(norm, {}, 100).factor.item<float>(), 1);
  EXPECT_EQ(scale_and_clip(norm, {}, 0).factor.item<float>(), 1);
  const auto scaled = scale_and_clip(norm, torch::tensor(0.5F), 2);
  EXPECT_EQ(scaled.norm.item<float>(), 4);
  EXPECT_NEAR(scaled.factor.item<float>(), 0.25, 1e-6);
  EXPECT_TRUE(std::isnan(scale_and_clip(torch::tensor(NAN), {}, 0).factor.item<float>()));
}

TEST(LossScale, GrowsAfterGoodStepsAndBacksOffAtOnce) {
  LossScale scale({.initial = 8, .growth = 2, .backoff = 0.5, .interval = 3}, at::kCPU);
  const at::Tensor good = torch::tensor(1.0F), bad = torch::tensor(INFINITY);
  std::vector<float> seen;
  for (const auto& norm : {good, good, good, good, bad, good, good, good, bad, bad}) {
    scale.update(norm);
    seen.push_back(scale.scale().item<float>());
  }
  EXPECT_THAT(seen, testing::ElementsAre(8, 8, 16, 16, 8, 8, 8, 16, 8, 4));
  EXPECT_EQ(scale.num_skipped(), 3);
}

TEST(WeightAverage, FollowsAndSwaps) {
  const at::Tensor master = torch::zeros({5000}), working = torch::zeros({5000}, at::kBFloat16);
  WeightAverage average({{"p", working, master}}, 0.9);
  master.fill_(1);
  average.update();
  average.update();
  EXPECT_NEAR(average.state()[0].local[4999].item<float>(), 0.19, 1e-6);
  average.swap();
  EXPECT_NEAR(master[0].item<float>(), 0.19, 1e-6);
  EXPECT_TRUE(torch::equal(working, master.to(at::kBFloat16)));
  average.swap();
  EXPECT_EQ(master[0].item<float>(), 1);
  EXPECT_EQ(average.state()[0].name, "ema/p");
}

}  // namespace
}  // namespace tessera
