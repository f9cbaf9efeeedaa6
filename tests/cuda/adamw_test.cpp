#include "trainer/optimizers/adamw.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "tests/cuda/fibres.h"
#include "trainer/kernels/cuda/model_kernels.h"

namespace tessera {
namespace {

// Around a thread's four elements, a tile's 1,024 and a chunk's 8,192.
const std::vector<int64_t> sizes{0, 1, 7, 63, 64, 65, 1024, 4099, 8192 + 1024 + 5};

/// Random, part of a longer tensor from element `offset` on, as ZeRO's parts are.
at::Tensor random_part(int64_t size, int64_t offset = 0, at::ScalarType type = at::kFloat) {
  return torch::randn({size + offset}).to(type).slice(0, offset);
}

struct Trial {
  std::vector<Parameter> parameters;
  std::vector<at::Tensor> gradients;
};
/// One more parameter, with rates of its own; `working` float32: without a copy.
void add(Trial& trial, const at::Tensor& master, const at::Tensor& working, const at::Tensor& gradient) {
  const size_t number = trial.parameters.size();
  trial.parameters.push_back({.name = "p" + std::to_string(number),
                              .working = working.scalar_type() == at::kFloat ? master : working,
                              .master = master,
                              .learning_rate_scale = number % 3 == 0 ? 1.0 : 0.7,
                              .weight_decay_scale = number % 2 == 0 ? 1.0 : 0.0});
  trial.gradients.push_back(gradient);
}

std::vector<at::Tensor> values_of(const Optimizer& optimizer) {
  std::vector<at::Tensor> values{torch::tensor(optimizer.num_steps())};
  for (const Parameter& each : optimizer.parameters()) {
    values.push_back(each.master.clone());
    values.push_back(each.working.clone());
  }
  for (const auto& piece : optimizer.state()) values.push_back(piece.local.clone());
  return values;
}

void expect_same(const std::vector<at::Tensor>& ours, const std::vector<at::Tensor>& theirs) {
  ASSERT_EQ(ours.size(), theirs.size());
  for (size_t i = 0; i < ours.size(); ++i) EXPECT_TRUE(torch::equal(ours[i], theirs[i])) << "value " << i;
}

AdamwOptions options_with(double weight_decay, bool bias_correction = true) {
  AdamwOptions options;
  options.epsilon = 1e-6;
  options.weight_decay = weight_decay;
  options.bias_correction = bias_correction;
  return options;
}

struct Steps {
  AdamwOptions options = options_with(0.1);
  std::vector<float> scales = {0.5F, 1, 0.25F};  ///< of the steps' gradients; 1: passed as undefined
  std::vector<int64_t> first_steps = {};
  int64_t num_steps = 0;  ///< taken before
};

/// The trial's values after these steps, which begin from the same values each time.
std::vector<at::Tensor> stepped(const Trial& trial, const Steps& steps, const Kernels* kernels) {
  std::vector<at::Tensor> before;
  for (const Parameter& each : trial.parameters) before.push_back(each.master.clone());
  Adamw optimizer(trial.parameters, steps.options);
  if (kernels) optimizer.use_kernels(*kernels);
  optimizer.set_num_steps(steps.num_steps);
  if (!steps.first_steps.empty()) optimizer.set_first_steps(steps.first_steps);
  for (const float scale : steps.scales) {
    optimizer.step(0.01, trial.gradients, scale == 1 ? at::Tensor() : torch::tensor(scale));
  }
  const auto values = values_of(optimizer);
  for (size_t i = 0; i < before.size(); ++i) trial.parameters[i].master.copy_(before[i]);
  return values;
}

void expect_as_on_cpu(const Trial& trial, const Steps& steps = {}) {
  expect_same(stepped(trial, steps, &cuda::kernels()), stepped(trial, steps, nullptr));
}

using Types = std::tuple<at::ScalarType, at::ScalarType>;
class AdamwOfTypesOnFibres : public testing::TestWithParam<Types> {};

TEST_P(AdamwOfTypesOnFibres, EqualsTheCpuBitForBit) {
  torch::manual_seed(1);
  const auto [gradient, working] = GetParam();
  Trial trial;
  for (const int64_t size : sizes) {
    add(trial, random_part(size), random_part(size, 0, working), random_part(size, 0, gradient));
  }
  for (const int64_t size : {7, 4099}) {
    add(trial, random_part(size), random_part(size, 0, working), random_part(size, 3, gradient));
    add(trial, random_part(size), random_part(size, 5, working), random_part(size, 0, gradient));
    add(trial, random_part(size, 1), random_part(size, 1, working), random_part(size, 1, gradient));
  }
  expect_as_on_cpu(trial);
}

constexpr auto low = at::kBFloat16;
INSTANTIATE_TEST_SUITE_P(All, AdamwOfTypesOnFibres,
                         testing::Values(Types{at::kFloat, at::kFloat}, Types{at::kFloat, low},
                                         Types{low, low}, Types{at::kFloat, at::kHalf},
                                         Types{at::kHalf, at::kHalf}, Types{low, at::kFloat}),
                         [](const auto& types) {
                           return std::string(c10::toString(std::get<0>(types.param))) + "To" +
                                  c10::toString(std::get<1>(types.param));
                         });

Trial mixed_trial() {
  torch::manual_seed(2);
  Trial trial;
  add(trial, random_part(70), random_part(70, 0, low), random_part(70, 0, low));
  add(trial, random_part(1030), random_part(1030, 0, low), random_part(1030));
  add(trial, random_part(5), random_part(5), random_part(5, 0, at::kHalf));
  trial.parameters.back().working = random_part(5);  // a copy of its own although float32
  return trial;
}

TEST(AdamwOnFibres, WithoutBiasCorrection) {
  expect_as_on_cpu(mixed_trial(), {.options = options_with(0.01, false)});
}

TEST(AdamwOnFibres, ParametersThatBeganLate) {
  expect_as_on_cpu(mixed_trial(), {.first_steps = {0, 9, 4}, .num_steps = 9});
}

TEST(AdamwOnFibres, ScaleThatIsNotFiniteChangesNothing) {
  const Trial trial = mixed_trial();
  for (const float bad : {INFINITY, NAN}) {
    expect_as_on_cpu(trial, {.scales = {0.5F, bad, 0.25F}});
    expect_same(stepped(trial, {.scales = {0.5F, bad}}, &cuda::kernels()),
                stepped(trial, {.scales = {0.5F}}, &cuda::kernels()));
  }
}

TEST(AdamwOnFibres, MoreTensorsThanALaunchTakesSomeWithoutGradient) {
  torch::manual_seed(3);
  Trial trial;
  for (int i = 0; i < 1000; ++i) add(trial, random_part(3), random_part(3, 0, low), random_part(3, 0, low));
  for (size_t i = 0; i < 1000; i += 7) trial.gradients[i].reset();
  expect_as_on_cpu(trial, {.scales = {0.5F}});
}

TEST(AdamwOnFibres, DoesNotDependOnTheOrderOfThreadsAndBlocks) {
  const Trial trial = mixed_trial();
  const Steps steps{.first_steps = {0, 9, 4}, .num_steps = 9};
  const auto expected = stepped(trial, steps, nullptr);
  for (const auto order : {fibres::Order::descending, fibres::Order::shuffled}) {
    fibres::set_order(order);
    expect_same(stepped(trial, steps, &cuda::kernels()), expected);
  }
  fibres::set_order(fibres::Order::ascending);
}

TEST(AdamwOnFibres, FollowsTorch) {
  torch::manual_seed(4);
  Trial trial;
  for (const int64_t size : sizes) add(trial, random_part(size), random_part(size), {});
  std::vector<at::Tensor> theirs;
  for (Parameter& each : trial.parameters) {
    each.learning_rate_scale = each.weight_decay_scale = 1;
    theirs.push_back(each.master.clone());
  }
  Adamw optimizer(trial.parameters, options_with(0.1));
  optimizer.use_kernels(cuda::kernels());
  torch::optim::AdamW reference(theirs, torch::optim::AdamWOptions(0.01).eps(1e-6).weight_decay(0.1));
  for (int step = 0; step < 20; ++step) {
    for (size_t i = 0; i < theirs.size(); ++i) {
      trial.gradients[i] = random_part(theirs[i].numel()) * std::pow(10.0, step % 5 - 3);
      theirs[i].mutable_grad() = trial.gradients[i].clone();
    }
    optimizer.step(0.01, trial.gradients);
    reference.step();
  }
  for (size_t i = 0; i < theirs.size(); ++i) {
    if (theirs[i].numel() == 0) continue;
    const double unit = std::pow(2.0, -23) * theirs[i].abs().max().item<double>();
    EXPECT_LE((trial.parameters[i].master - theirs[i]).abs().max().item<double>(), 32 * unit)
        << "tensor " << i;
  }
}

TEST(SumOfSquaresOnFibres, OfAllTypesPlacesAndCounts) {
  torch::manual_seed(5);
  std::vector<at::Tensor> tensors;
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const int64_t size : {0, 1, 7, 64, 65, 4099, 16384, 40005}) {
      for (const int64_t offset : {0, 1}) tensors.push_back(random_part(size, offset, type));
    }
  }
  for (int i = 0; i < 1500; ++i) tensors.push_back(random_part(2));  // more than a launch takes
  double expected = 0;
  for (const at::Tensor& each : tensors) expected += each.to(at::kDouble).square().sum().item<double>();
  const float ours = cuda::sum_of_squares(tensors).item<float>();
  EXPECT_NEAR(ours, expected, 1e-6 * expected);
  fibres::set_order(fibres::Order::shuffled);
  EXPECT_EQ(cuda::sum_of_squares(tensors).item<float>(), ours);
  fibres::set_order(fibres::Order::ascending);
  tensors[5][0] = INFINITY;
  EXPECT_FALSE(std::isfinite(cuda::sum_of_squares(tensors).item<float>()));
}

}  // namespace
}  // namespace tessera
