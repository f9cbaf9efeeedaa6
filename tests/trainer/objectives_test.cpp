#include "trainer/objectives/objectives.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>

#include "trainer/models/bert.h"
#include "trainer/models/gpt.h"
#include "trainer/objectives/masking.h"

namespace tessera {
namespace {

using testing::ElementsAre;
constexpr int32_t vocabulary = 1000, pad = 0, cls = 1, sep = 2, mask = 3;

// Tokens are numbers; those from 500 on continue a word.
class NumberTokenizer : public Tokenizer {
 public:
  void encode(std::string_view, std::vector<int32_t>&) const override {}
  Encoding encode_with_offsets(std::string_view) const override { return {}; }
  std::string decode(const std::vector<int32_t>&, bool) const override { return {}; }
  int32_t vocab_size() const override { return vocabulary; }
  int32_t id_of(std::string_view) const override { return -1; }
  std::string token_of(int32_t id) const override { return std::to_string(id); }
  bool continues_word(int32_t id) const override { return id >= 500; }
  const SpecialTokens& special() const override { return special_; }
  std::string json() const override { return {}; }
  SpecialTokens special_{pad, -1, cls, sep, mask, -1, -1};
};

ObjectiveSetting setting(int64_t sequence_length = 64) {
  return {std::make_shared<NumberTokenizer>(), sequence_length, 7};
}

std::vector<int32_t> sentence(int64_t length, int32_t first = 10) {
  std::vector<int32_t> tokens{cls};
  for (int32_t i = 0; i < length - 2; ++i) tokens.push_back(first + i * 37 % 480);
  tokens.push_back(sep);
  return tokens;
}

TEST(Masking, HasGooglesStatistics) {
  const Masking masking({0.15, 0, false}, setting().tokenizer);
  const auto tokens = sentence(100);
  double masked = 0, kept = 0, random = 0, predictions = 0;
  std::vector<double> places(100, 0);
  constexpr int64_t samples = 4000;
  for (int64_t sample = 0; sample < samples; ++sample) {
    const Masked result = masking.mask(tokens, 7, sample);
    ASSERT_EQ(result.positions.size(), 15);
    for (size_t i = 0; i < result.positions.size(); ++i) {
      const auto at = static_cast<size_t>(result.positions[i]);
      ASSERT_EQ(result.labels[i], tokens[at]);
      ++places[at];
      ++predictions;
      const int32_t now = result.tokens[at];
      ++(now == mask ? masked : now == tokens[at] ? kept : random);
    }
  }
  const auto expect_share = [&](double count, double share) {
    EXPECT_NEAR(count, share * predictions, 3 * std::sqrt(predictions * share * (1 - share)));
  };
  // A random token is the mask or the same token once in a thousand times each.
  expect_share(masked, 0.8 + 0.1 / vocabulary);
  expect_share(kept, 0.1 + 0.1 / vocabulary);
  expect_share(random, 0.1 - 0.2 / vocabulary);
  EXPECT_EQ(places.front() + places.back(), 0);
  double chi2 = 0;
  const double expected = predictions / 98;
  for (size_t i = 1; i < 99; ++i) chi2 += std::pow(places[i] - expected, 2) / expected;
  EXPECT_LT(chi2, 97 + 3 * std::sqrt(2 * 97));
}

TEST(Masking, CountsAsGoogle) {
  const auto count = [](int64_t length, double probability, int64_t limit) {
    return Masking({probability, limit, false}, setting().tokenizer)
        .mask(sentence(length), 1, 1)
        .positions.size();
  };
  EXPECT_EQ(count(128, 0.15, 20), 19);
  EXPECT_EQ(count(512, 0.15, 20), 20);
  EXPECT_EQ(count(3, 0.15, 20), 1);
  EXPECT_EQ(count(10, 1.0, 0), 8);
}

TEST(Masking, HidesWholeWords) {
  const Masking masking({0.3, 0, true}, setting().tokenizer);
  const std::vector<int32_t> tokens{cls, 10, 500, 501, 11, 12, 502, 13, 14, 503, 504, 505, 15, sep};
  for (int64_t sample = 0; sample < 200; ++sample) {
    const Masked result = masking.mask(tokens, 3, sample);
    EXPECT_LE(result.positions.size(), 4);
    EXPECT_FALSE(result.positions.empty());
    std::set<int32_t> hidden(result.positions.begin(), result.positions.end());
    for (size_t i = 1; i < tokens.size(); ++i) {
      const auto at = static_cast<int32_t>(i);
      if (tokens[i] >= 500) {
        EXPECT_EQ(hidden.count(at), hidden.count(at - 1)) << sample << " " << i;
      }
    }
  }
}

Example example(int64_t index, int64_t length) {
  Example result;
  result.index = index;
  result.tokens = sentence(length);
  result.segments.assign(static_cast<size_t>(length), 0);
  result.segments.back() = 1;
  result.next_sentence = static_cast<int>(index % 2);
  return result;
}

TEST(MaskedLm, BatchesDependOnTheSampleOnly) {
  const auto objective = make_masked_lm({}, true, setting());
  const Batch both = objective->collate({example(5, 30), example(9, 64)});
  const Batch one = objective->collate({example(9, 64)});
  EXPECT_TRUE(torch::equal(both.tokens[1], one.tokens[0]));
  EXPECT_EQ(both.sequence(), 64);
  EXPECT_EQ(both.num_tokens, 94);
  EXPECT_EQ(both.attention_mask.sum().item<int64_t>(), 94);
  EXPECT_FALSE(one.attention_mask.defined());
  EXPECT_TRUE(torch::equal(both.next_sentence, torch::tensor({1, 1})));
  EXPECT_THAT(both.counts, ElementsAre(5 + 10, 2));
  EXPECT_EQ(both.labels.ge(0).sum().item<int64_t>(), both.counts[0]);
  EXPECT_EQ(both.labels.size(0), 32);  // filled up with rows that predict nothing
  EXPECT_EQ(both.label_positions.size(0), 32);
  EXPECT_EQ(both.segments[0][29].item<int64_t>(), 1);
}

TEST(MaskedLm, UsesMaskedExamplesAsTheyAre) {
  Example given = example(1, 20);
  given.masked_positions = {3, 7};
  given.masked_ids = {77, 78};
  const Batch batch = make_masked_lm({}, true, setting())->collate({given});
  EXPECT_TRUE(torch::equal(batch.label_positions.slice(0, 0, 2), torch::tensor({3, 7})));
  EXPECT_TRUE(torch::equal(batch.labels.slice(0, 0, 2), torch::tensor({77, 78})));
  for (size_t i = 0; i < given.tokens.size(); ++i)
    EXPECT_EQ(batch.tokens[0][static_cast<int64_t>(i)].item<int64_t>(), given.tokens[i]);
}

TEST(MaskedLm, NeedsToKnowWhetherSentencesFollow) {
  Example unknown = example(1, 20);
  unknown.next_sentence = -1;
  EXPECT_THROW(make_masked_lm({}, true, setting())->collate({unknown}), Error);
  EXPECT_NO_THROW(make_masked_lm({}, false, setting())->collate({unknown}));
}

TEST(CausalLm, EveryPositionPredictsTheNext) {
  Example span;
  span.tokens = {10, 11, 12, 13, 14};
  const auto objective = make_causal_lm(setting(4));
  const Batch batch = objective->collate({span});
  EXPECT_TRUE(torch::equal(batch.tokens, torch::tensor({{10, 11, 12, 13}})));
  EXPECT_TRUE(torch::equal(batch.labels, torch::tensor({11, 12, 13, 14})));
  EXPECT_FALSE(batch.label_positions.defined());
  Example short_span;
  short_span.tokens = {10, 11};
  const Batch ragged = objective->collate({short_span, span});
  EXPECT_TRUE(torch::equal(ragged.label_positions.slice(0, 0, 5), torch::tensor({0, 4, 5, 6, 7})));
  EXPECT_THAT(ragged.counts, ElementsAre(5));
}

TEST(Losses, StartNearTheUniformGuess) {
  BertConfig bert;
  bert.num_layers = 2;
  bert.hidden_size = 64;
  bert.num_heads = 4;
  bert.feed_forward_size = 128;
  bert.vocab_size = vocabulary;
  const ModelPtr model = make_bert(bert);
  model->initialise(1);
  const auto objective = make_masked_lm({}, true, setting());
  const Batch batch = objective->collate({example(0, 64), example(1, 40)});
  const LossTerms terms = objective->loss(*model, model->forward(batch), batch);
  EXPECT_THAT(objective->terms(), ElementsAre("mlm", "nsp"));
  EXPECT_NEAR(terms.sums[0].item<double>() / static_cast<double>(batch.counts[0]), std::log(vocabulary), 0.2);
  EXPECT_NEAR(terms.sums[1].item<double>() / 2, std::log(2), 0.2);
  terms.sums.sum().backward();
  for (const auto& item : model->named_parameters()) EXPECT_TRUE(item.value().grad().defined()) << item.key();
}

}  // namespace
}  // namespace tessera
