#include "trainer/model.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "recipes/random.h"
#include "trainer/initialise.h"
#include "trainer/models/bert.h"
#include "trainer/models/gpt.h"
#include "trainer/models/models.h"
#include "trainer/name_map.h"

namespace tessera {
namespace {

template <class Config>
Config small() {
  Config config;
  config.num_layers = 2;
  config.hidden_size = 40;
  config.num_heads = 4;
  config.feed_forward_size = 96;
  config.max_positions = 24;
  config.vocab_size = 71;
  return config;
}

enum class Kind { bert, gpt1, gpt2 };
ModelPtr make(Kind kind, double attention_dropout = 0) {
  ModelPtr model;
  if (kind == Kind::bert) {
    auto config = small<BertConfig>();
    config.attention_dropout = attention_dropout;
    model = make_bert(config);
  } else {
    auto config = small<GptConfig>();
    config.version = kind == Kind::gpt1 ? 1 : 2;
    config.attention_dropout = attention_dropout;
    model = make_gpt(config);
  }
  model->initialise(5);
  return model;
}

Batch batch_of(int64_t first_sample, int64_t count) {
  Batch batch;
  batch.tokens = torch::empty({count, 16}, at::kLong);
  for (int64_t i = 0; i < count; ++i) {
    RandomStream random(1, static_cast<uint64_t>(first_sample + i));
    for (int64_t j = 0; j < 16; ++j) batch.tokens[i][j] = static_cast<int64_t>(random.below(71));
  }
  batch.samples = torch::arange(first_sample, first_sample + count);
  return batch;
}

class EveryModel : public testing::TestWithParam<std::tuple<Kind, double>> {
 protected:
  ModelPtr model_ = make(std::get<0>(GetParam()), std::get<1>(GetParam()));
};

const DropoutState dropping{3, 17, true};

TEST_P(EveryModel, GivesTheSameForAnySplitOfTheBatch) {
  at::NoGradGuard no_grad;
  const at::Tensor whole = model_->forward(batch_of(4, 6), dropping).view({6, 16, -1});
  const at::Tensor part = model_->forward(batch_of(6, 2), dropping).view({2, 16, -1});
  EXPECT_TRUE(torch::allclose(part, whole.slice(0, 2, 4), 1e-5, 1e-5));
  DropoutState later = dropping;
  later.step += 1;
  EXPECT_FALSE(torch::allclose(whole, model_->forward(batch_of(4, 6), later).view({6, 16, -1}), 1e-2, 1e-2));
}

std::vector<at::Tensor> gradients_of(const Model& model, at::Tensor* loss) {
  Batch batch = batch_of(0, 3);
  batch.labels = batch.tokens.view(-1);
  *loss = model.token_loss(model.forward(batch, dropping), batch).sum;
  return torch::autograd::grad({*loss}, model.parameters(), {}, false, false, /*allow_unused=*/true);
}

TEST_P(EveryModel, RecomputingChangesNoBit) {
  at::Tensor loss, again;
  const auto expected = gradients_of(*model_, &loss);
  model_->set_recompute(true);
  const auto recomputed = gradients_of(*model_, &again);
  EXPECT_TRUE(torch::equal(loss, again));
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(expected[i].defined(), recomputed[i].defined());
    if (expected[i].defined()) {
      EXPECT_TRUE(torch::equal(expected[i], recomputed[i])) << i;
    }
  }
}

TEST_P(EveryModel, TrainsInBfloat16) {
  at::Tensor loss, rough;
  gradients_of(*model_, &loss);
  model_->to(at::kBFloat16);
  for (const at::Tensor& gradient : gradients_of(*model_, &rough)) {
    if (gradient.defined()) {
      EXPECT_TRUE(gradient.isfinite().all().item<bool>());
    }
  }
  EXPECT_NEAR(rough.item<float>() / loss.item<float>(), 1, 0.01);
}

TEST_P(EveryModel, NamesEveryParameterOnceForHuggingFace) {
  std::set<std::string> named, keys;
  for (const HuggingFaceTensor& entry : model_->name_map()) {
    EXPECT_TRUE(keys.insert(entry.key).second) << entry.key;
    for (const std::string& name : entry.names) EXPECT_TRUE(named.insert(name).second) << name;
  }
  for (const auto& item : model_->named_parameters()) EXPECT_EQ(named.count(item.key()), 1) << item.key();
  EXPECT_EQ(named.size(), model_->named_parameters().size());
}

INSTANTIATE_TEST_SUITE_P(All, EveryModel,
                         testing::Combine(testing::Values(Kind::bert, Kind::gpt1, Kind::gpt2),
                                          testing::Values(0.0, 0.2)));

TEST(Initialise, DependsOnNameSeedAndElementOnly) {
  const ModelPtr small_model = make(Kind::gpt2);
  auto config = small<GptConfig>();
  config.num_layers = 3;
  const ModelPtr deeper = make_gpt(config);
  deeper->initialise(5);
  const char* name = "layers.1.attention.query.weight";
  const at::Tensor weight = small_model->named_parameters()[name];
  EXPECT_TRUE(torch::equal(weight, deeper->named_parameters()[name]));
  deeper->initialise(6);
  EXPECT_FALSE(torch::equal(weight, deeper->named_parameters()[name]));
  EXPECT_FALSE(torch::equal(weight, small_model->named_parameters()["layers.0.attention.query.weight"]));
  at::Tensor rectangle = torch::empty({7, 11});
  fill_normal(rectangle, mix(5, hash_name(name)), {40, 40}, {3, 21}, 0.02);
  EXPECT_TRUE(torch::equal(rectangle, weight.slice(0, 3, 10).slice(1, 21, 32)));
}

TEST(Initialise, HasTheDeviationsOfThePapers) {
  auto config = small<GptConfig>();
  config.hidden_size = 160;
  config.num_layers = 8;
  const ModelPtr model = make_gpt(config);
  model->initialise(1);
  const auto expect_deviation = [&](const std::string& layer_part, double deviation) {
    std::vector<at::Tensor> all;
    for (const auto& item : model->named_parameters()) {
      if (item.key().ends_with(layer_part)) all.push_back(item.value().detach().view(-1) / deviation);
    }
    ASSERT_EQ(all.size(), 8);
    const at::Tensor values = at::cat(all).to(at::kDouble);
    const double count = static_cast<double>(values.numel());
    EXPECT_NEAR(values.mean().item<double>(), 0, 3 / std::sqrt(count));
    EXPECT_NEAR(values.pow(2).mean().item<double>(), 1, 3 * std::sqrt(2 / count));
    EXPECT_NEAR(values.pow(4).mean().item<double>(), 3, 3 * std::sqrt(96 / count));
  };
  expect_deviation("attention.query.weight", 0.02);
  expect_deviation("attention.output.weight", 0.005);
  expect_deviation("feed_forward.contract.weight", 0.005);
  EXPECT_EQ(model->named_parameters()["layers.0.attention.query.bias"].abs().max().item<float>(), 0);
  EXPECT_EQ(model->named_parameters()["norm.weight"].min().item<float>(), 1);
}

TEST(Generation, CacheGivesWhatAWholeForwardGives) {
  at::NoGradGuard no_grad;
  for (const Kind kind : {Kind::gpt1, Kind::gpt2}) {
    const ModelPtr model = make(kind);
    const Batch batch = batch_of(0, 2);
    KeyValueCache cache = model->make_cache(2);
    at::Tensor logits = model->next_logits(batch.tokens.slice(1, 0, 5), cache);
    logits = model->next_logits(batch.tokens.slice(1, 5, 9), cache);
    for (int64_t i = 9; i < 16; ++i) logits = model->next_logits(batch.tokens.slice(1, i, i + 1), cache);
    const at::Tensor whole = model->token_logits(model->forward(batch)).view({2, 16, -1}).select(1, 15);
    EXPECT_TRUE(torch::allclose(logits, whole, 1e-4, 1e-5));
  }
}

TEST(Generation, LeftPaddingChangesNothing) {
  at::NoGradGuard no_grad;
  const ModelPtr model = make(Kind::gpt2);
  const at::Tensor tokens = batch_of(0, 1).tokens.slice(1, 0, 6);
  KeyValueCache alone = model->make_cache(1), padded = model->make_cache(1);
  padded.padding = torch::tensor({3});
  const at::Tensor expected = model->next_logits(tokens, alone);
  const at::Tensor logits = model->next_logits(at::cat({torch::zeros({1, 3}, at::kLong), tokens}, 1), padded);
  EXPECT_TRUE(torch::allclose(logits, expected, 1e-4, 1e-5));
  const at::Tensor next = torch::tensor({{7}});
  EXPECT_TRUE(torch::allclose(model->next_logits(next, padded), model->next_logits(next, alone), 1e-4, 1e-5));
}

TEST(MakeModel, ReadsChoicesAndRefusesASmallVocabulary) {
  const ChoiceTable choices = model_choices();
  Choice choice(*choices.find("bert"));
  auto* config = choice.get_if<BertConfig>();
  *config = small<BertConfig>();
  config->vocab_size = 0;
  EXPECT_EQ(make_model(choice, {90, true})->vocab_size(), 90);
  EXPECT_THROW(make_model(choice, {90, false})->pair_logits(torch::zeros({2, 40}), {}), Error);
  config->vocab_size = 89;
  EXPECT_THROW(make_model(choice, {90, true}), Error);
}

}  // namespace
}  // namespace tessera
