// Models whose layers are divided among all ranks against the same models whole, in float64: losses and every
// gradient.
#include "parallel/tensor_split.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/ranks/world.h"
#include "trainer/batch_division.h"
#include "trainer/blocks/functions.h"
#include "trainer/models/bert.h"
#include "trainer/models/gpt.h"
#include "trainer/placement.h"

namespace tessera {
namespace {

constexpr int64_t vocabulary = 71;  // divides by no number of ranks

template <class Config>
Config divisible_config() {
  Config config;
  config.num_layers = 2;
  config.hidden_size = 48;
  config.num_heads = 12;
  config.feed_forward_size = 50;
  config.max_positions = 24;
  config.vocab_size = vocabulary;
  config.dropout = 0.1;
  config.attention_dropout = 0.2;
  return config;
}

ModelPtr bare_model(const std::string& family) {
  if (family == "bert") {
    auto config = divisible_config<BertConfig>();
    return make_bert(config);
  }
  auto config = divisible_config<GptConfig>();
  config.version = family == "gpt1" ? 1 : 2;
  return make_gpt(config);
}

Batch labelled_batch(bool pairs) {
  Batch batch;
  batch.tokens = (torch::arange(3 * 18) * 7 % vocabulary).view({3, 18});
  batch.samples = torch::arange(4, 7);
  batch.labels = (torch::arange(3 * 18) * 5 + 3) % vocabulary;
  if (!pairs) return batch;
  batch.label_positions = torch::tensor({1, 5, 17, 18, 30, 53, 0});
  batch.labels = torch::tensor({3, 70, 0, 35, 36, 9, -1});
  batch.segments = torch::arange(3 * 18).view({3, 18}).remainder(18).ge(9).to(torch::kLong);
  batch.attention_mask = torch::ones({3, 18}, torch::kBool);
  batch.attention_mask[1].slice(0, 14, 18).fill_(false);
  batch.next_sentence = torch::tensor({0, 1, 1});
  return batch;
}

at::Tensor total_loss(const Model& model, const Batch& batch) {
  const at::Tensor hidden = model.forward(batch, {3, 17, true});
  at::Tensor loss = model.token_loss(hidden, batch).sum;
  if (batch.next_sentence.defined()) {
    loss = loss + 5 * at::cross_entropy_loss(model.pair_logits(hidden, batch), batch.next_sentence, {},
                                             at::Reduction::Sum);
  }
  return loss;
}

/// The rectangle of a whole tensor that a placement covers.
at::Tensor rectangle(at::Tensor whole, const Placement& place, at::IntArrayRef shape) {
  for (int64_t dim = 0; dim < whole.dim(); ++dim) whole = whole.narrow(dim, place.offset[dim], shape[dim]);
  return whole;
}

class DividedModel : public testing::TestWithParam<std::tuple<std::string, bool>> {};

TEST_P(DividedModel, HasTheLossAndGradientsOfTheWhole) {
  const auto& [family, recompute] = GetParam();
  const Communicator& world = test_world().communicator();
  const Batch batch = labelled_batch(family == "bert");
  const ModelPtr whole = bare_model(family);
  whole->initialise(5);
  whole->to(at::kDouble);
  const at::Tensor expected = total_loss(*whole, batch);
  expected.backward();

  const ModelPtr model = bare_model(family);
  const auto placed = place_parameters(*model, Mesh(world, {.tensor = world.size()}));
  allocate(placed);
  model->initialise(5, collect_parameters(placed));
  model->to(at::kDouble);
  if (world.size() > 1) model->divide_layers(TensorSplit(world));
  model->set_recompute(recompute);
  const at::Tensor loss = total_loss(*model, divide(batch, {.multiple = world.size()}));
  EXPECT_NEAR(loss.item<double>() / expected.item<double>(), 1, 1e-12);
  loss.backward();
  auto gradients = whole->named_parameters();
  for (const auto& each : placed) {
    const at::Tensor gradient = each.tensor.grad().clone(at::MemoryFormat::Contiguous);
    if (!each.placement.split) world.all_reduce(gradient);
    const at::Tensor wanted = gradients[each.name].grad();
    const double scale = wanted.abs().max().item<double>();
    const double worst =
        (gradient - rectangle(wanted, each.placement, gradient.sizes())).abs().max().item<double>();
    EXPECT_LT(worst, 1e-10 * scale + 1e-14) << each.name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, DividedModel,
                         testing::Combine(testing::Values("bert", "gpt1", "gpt2"), testing::Bool()));

TEST(SplitCrossEntropy, IsTheSameInPaddedRows) {
  const TensorSplit split(test_world().communicator());
  const int64_t first = split.first_of(vocabulary);
  const int64_t classes = vocabulary * (split.rank() + 1) / split.size() - first;
  for (const auto& [type, tolerance] : {std::pair(at::kDouble, 1e-12), std::pair(at::kBFloat16, 2e-2)}) {
    torch::manual_seed(8);
    const at::Tensor labels = torch::randint(0, vocabulary, {11});
    std::vector<at::Tensor> inputs{torch::randn({11, 8}, at::kDouble),
                                   torch::randn({vocabulary, 8}, at::kDouble).narrow(0, first, classes),
                                   torch::randn({vocabulary}, at::kDouble).narrow(0, first, classes)};
    for (at::Tensor& input : inputs) input = input.to(type).detach().requires_grad_();
    std::vector<std::vector<at::Tensor>> values;
    for (const int64_t row_multiple : {1, 64}) {
      const ops::TokenLoss loss =
          ops::split_cross_entropy({&split, first, row_multiple}, inputs[0], inputs[1], inputs[2], labels);
      values.push_back(torch::autograd::grad({loss.sum * 0.5}, inputs));
      values.back().push_back(loss.sum);
    }
    for (size_t i = 0; i < values[0].size(); ++i) {
      const double scale = values[0][i].abs().max().item<double>();
      EXPECT_LT((values[1][i] - values[0][i]).abs().max().item<double>(), tolerance * scale) << i;
    }
  }
}

TEST(Placement, SplitsEveryLayerThatItsPlanNames) {
  const Communicator& world = test_world().communicator();
  for (const char* family : {"bert", "gpt2"}) {
    const ModelPtr model = bare_model(family);
    int64_t split = 0, whole = 0;
    for (const auto& each : place_parameters(*model, Mesh(world, {.tensor = world.size()}))) {
      (each.placement.split ? split : whole) += each.tensor.numel();
    }
    if (world.size() > 1) {
      EXPECT_GT(split, whole);
    } else {
      EXPECT_EQ(split, 0);
    }
  }
}

}  // namespace
}  // namespace tessera
