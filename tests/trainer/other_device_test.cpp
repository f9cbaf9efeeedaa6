// Models that are used where they are: no tensor of the host meets theirs.
#include "tests/trainer/other_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "trainer/evaluate.h"
#include "trainer/few_shot.h"
#include "trainer/generate.h"
#include "trainer/models/bert.h"
#include "trainer/models/gpt.h"
#include "trainer/objectives/objectives.h"

namespace tessera {
namespace {

constexpr const char* four_words =
    R"({"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "BertPreTokenizer"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}}})";

template <class Config>
Config tiny_config() {
  Config config;
  config.num_layers = 2;
  config.hidden_size = 32;
  config.num_heads = 2;
  config.feed_forward_size = 64;
  config.vocab_size = 50;
  config.max_positions = 24;
  config.initializer_range = 0.3;
  return config;
}

/// A model on the CPU and the same one on the other device.
struct Twins {
  ModelPtr host, device;
};
Twins twins(const std::function<ModelPtr()>& make) {
  Twins both{make(), make()};
  for (const ModelPtr& model : {both.host, both.device}) {
    model->initialise(3);
    model->eval();
  }
  both.device->to(other_device);
  EXPECT_EQ(device_of(*both.device), other_device);
  return both;
}
Twins gpts() {
  return twins([] { return make_gpt(tiny_config<GptConfig>()); });
}

TEST(OtherDevice, KeepsHostAndDeviceApart) {
  const at::Tensor host = torch::arange(6).view({2, 3}), device = host.to(other_device);
  EXPECT_TRUE(torch::equal((device * 2 + 1).t().to(at::kCPU), (host * 2 + 1).t()));
  EXPECT_THROW(device + host, c10::Error);
  EXPECT_THROW(device.index_select(0, torch::zeros({1}, at::kLong)), c10::Error);
  EXPECT_DEATH(*device.data_ptr<int64_t>() = 1, "");
}

TEST(OtherDevice, Generates) {
  const Twins gpt = gpts();
  GenerateOptions options;
  options.max_tokens = 10;
  options.sampling.top_k = 20;
  options.sampling.repetition_penalty = 1.2;
  const std::vector<std::vector<int32_t>> prompts = {{1, 2, 3}, {7}, {9, 9, 4, 5, 6}};
  EXPECT_EQ(generate(*gpt.device, prompts, options), generate(*gpt.host, prompts, options));
}

TEST(OtherDevice, FillsMasks) {
  const Twins bert = twins([] { return make_bert(tiny_config<BertConfig>()); });
  const std::vector<int32_t> tokens = {2, 10, 4, 11, 4, 3};
  const auto on_host = fill_mask(*bert.host, tokens, 4, 3), on_device = fill_mask(*bert.device, tokens, 4, 3);
  ASSERT_EQ(on_device.size(), 2U);
  for (size_t i = 0; i < on_host.size(); ++i) {
    for (size_t k = 0; k < 3; ++k) {
      EXPECT_EQ(on_device[i][k].token, on_host[i][k].token);
      EXPECT_NEAR(on_device[i][k].probability, on_host[i][k].probability, 1e-5);
    }
  }
}

TEST(OtherDevice, ScoresTexts) {
  const Twins gpt = gpts();
  const std::vector<ScoredText> texts = {{{1, 2, 3, 4}, 2}, {{1, 2, 3, 5}, 1}, {{8, 9, 10, 11, 12, 13}, 3}};
  const auto on_host = log_likelihoods(*gpt.host, texts, 2),
             on_device = log_likelihoods(*gpt.device, texts, 2);
  for (size_t i = 0; i < texts.size(); ++i) EXPECT_NEAR(on_device[i], on_host[i], 1e-4) << i;
}

/// Texts of different lengths, with all that any objective asks of an example.
class Texts : public Dataset {
 public:
  explicit Texts(bool of_tags) : of_tags_(of_tags) {}
  int64_t size() const override { return 5; }
  Example get(int64_t index) const override {
    Example example = text(index, 6 + 2 * index);
    example.next_sentence = static_cast<int>(index % 2);
    example.targets = {0.5F * static_cast<float>(index), 3 - 0.25F * static_cast<float>(index)};
    if (of_tags_) {
      example.labels.assign(example.tokens.size(), -1);
      for (size_t i = 1; i + 1 < example.tokens.size(); ++i) example.labels[i] = static_cast<int32_t>(i % 2);
    } else {  // a class or choice; or an answer's first and last token, and its context's beginning and end
      example.labels = {static_cast<int32_t>(index % 2), 3, 1, 5};
    }
    example.choices = {text(index, 5), text(index + 1, 8)};
    return example;
  }

 private:
  static Example text(int64_t index, int64_t length) {
    Example example;
    example.index = index;
    for (int64_t i = 0; i < length; ++i)
      example.tokens.push_back(static_cast<int32_t>(5 + (7 * i + index) % 45));
    example.segments.assign(example.tokens.size(), 0);
    return example;
  }
  bool of_tags_;
};

struct EvaluatedTask {
  std::string name;
  bool causal, of_tags;
  std::function<ObjectivePtr(const ObjectiveSetting&)> make;
};
void PrintTo(const EvaluatedTask& task, std::ostream* out) { *out << task.name; }

class OtherDeviceTask : public testing::TestWithParam<EvaluatedTask> {};

TEST_P(OtherDeviceTask, IsEvaluated) {
  const EvaluatedTask& task = GetParam();
  const ObjectivePtr objective = task.make({Tokenizer::parse(four_words, "built in"), 24, 1, task.causal});
  const Twins models = twins([&] {
    return task.causal ? make_gpt(tiny_config<GptConfig>(), objective->heads())
                       : make_bert(tiny_config<BertConfig>(), objective->heads());
  });
  const Texts texts(task.of_tags);
  EvaluateOptions options;
  options.micro_batch = 2;
  const LossReport on_host = evaluate(*models.host, *objective, texts, options);
  EXPECT_THROW(evaluate(*models.device, *objective, texts, options), c10::Error);  // batches left on the host
  options.device = other_device;
  const LossReport on_device = evaluate(*models.device, *objective, texts, options);
  EXPECT_NEAR(on_device.loss, on_host.loss, 1e-4 * on_host.loss);
  ASSERT_EQ(on_device.values.size(), on_host.values.size());
  for (size_t i = 0; i < on_host.values.size(); ++i)
    EXPECT_NEAR(on_device.values[i].second, on_host.values[i].second,
                1e-4 * std::abs(on_host.values[i].second));
  ASSERT_EQ(on_device.predictions.defined(), on_host.predictions.defined());
  if (!on_host.predictions.defined()) return;
  EXPECT_TRUE(torch::allclose(on_device.predictions, on_host.predictions, 1e-4, 1e-4));
  EXPECT_EQ(objective->prediction_lines(on_device.predictions, texts).size(), 5U);
}

INSTANTIATE_TEST_SUITE_P(
    All, OtherDeviceTask,
    testing::Values(EvaluatedTask{"mlm", false, false,
                                  [](const auto& setting) { return make_masked_lm({}, true, setting); }},
                    EvaluatedTask{"causal_lm", true, false,
                                  [](const auto& setting) { return make_causal_lm(setting); }},
                    EvaluatedTask{"classes", false, false,
                                  [](const auto& setting) {
                                    SequenceClassificationOptions sequence;
                                    sequence.labels = {"a", "b"};
                                    return make_sequence_classification(sequence, setting);
                                  }},
                    EvaluatedTask{"numbers", true, false,
                                  [](const auto& setting) {
                                    SequenceClassificationOptions sequence;
                                    sequence.labels = {"a", "b"};
                                    sequence.problem = Problem::regression;
                                    return make_sequence_classification(sequence, setting);
                                  }},
                    EvaluatedTask{"tags", false, true,
                                  [](const auto& setting) {
                                    TokenClassificationOptions tags;
                                    tags.labels = {"O", "B-X"};
                                    return make_token_classification(tags, setting);
                                  }},
                    EvaluatedTask{"choices", false, false,
                                  [](const auto& setting) { return make_multiple_choice({}, setting); }}),
    testing::PrintToStringParamName());

TEST(OtherDevice, AnswersAreLearnt) {  // its metrics need the dataset that it opens itself
  const ObjectivePtr objective =
      make_question_answering({}, {Tokenizer::parse(four_words, "built in"), 24, 1});
  const Twins models = twins([&] { return make_bert(tiny_config<BertConfig>(), objective->heads()); });
  const Texts texts(false);
  const Batch batch = objective->collate({texts.get(0), texts.get(1), texts.get(4)}),
              moved = batch.to(other_device);
  const LossTerms host = objective->loss(*models.host, models.host->forward(batch), batch);
  const LossTerms device = objective->loss(*models.device, models.device->forward(moved), moved);
  EXPECT_NEAR(device.sums.item<double>(), host.sums.item<double>(), 1e-3);
  EXPECT_TRUE(torch::allclose(objective->predictions(batch, device.outputs),
                              objective->predictions(batch, host.outputs), 1e-4, 1e-4));
}

}  // namespace
}  // namespace tessera
