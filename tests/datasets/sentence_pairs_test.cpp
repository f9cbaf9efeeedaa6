#include "datasets/sentence_pairs.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "tests/datasets/text_fixture.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

/// A text in which every token tells its document, sentence and place: no id occurs twice.
class SentencePairsTest : public InFolder {
 protected:
  struct Place {
    int document, sentence;
  };
  TokenFilePtr text(int count, int max_sentences, int max_length, uint64_t seed = 1) {
    RandomStream random(seed);
    std::vector<std::vector<std::vector<int32_t>>> documents(count);
    places_.assign(5, {-1, -1});
    for (int d = 0; d < count; ++d) {
      documents[d].resize(1 + random.below(max_sentences));
      for (size_t s = 0; s < documents[d].size(); ++s) {
        for (uint32_t i = 0; i < 1 + random.below(max_length); ++i) {
          documents[d][s].push_back(static_cast<int32_t>(places_.size()));
          places_.push_back({d, static_cast<int>(s)});
        }
      }
    }
    return std::make_shared<TokenFile>(
        token_file("text", documents, NumberTokenizer(static_cast<int32_t>(places_.size()))));
  }
  /// The tokens of segment A (0) or B (1), checked to be a run of the text.
  std::vector<int32_t> segment(const Example& example, int which) const {
    std::vector<int32_t> tokens;
    for (size_t i = 1; i < example.tokens.size(); ++i) {
      if (example.segments[i] == which && example.tokens[i] != 3) tokens.push_back(example.tokens[i]);
    }
    EXPECT_FALSE(tokens.empty());
    for (size_t i = 1; i < tokens.size(); ++i) EXPECT_EQ(tokens[i], tokens[i - 1] + 1);
    return tokens;
  }
  std::vector<Place> places_;
};

TEST_F(SentencePairsTest, ExamplesAreWellFormed) {
  const auto file = text(300, 12, 20);
  const auto data = sentence_pairs(file, {.sequence_length = 64, .seed = 3, .duplicate = 3});
  ASSERT_GT(data->size(), 900);
  for (int64_t i = 0; i < data->size(); ++i) {
    const Example example = data->get(i);
    const auto a = segment(example, 0), b = segment(example, 1);
    ASSERT_EQ(example.index, i);
    ASSERT_LE(example.tokens.size(), 64u);
    ASSERT_EQ(example.tokens.size(), a.size() + b.size() + 3);
    ASSERT_EQ(example.segments.size(), example.tokens.size());
    ASSERT_EQ(example.tokens.front(), 2);
    ASSERT_EQ(example.tokens[a.size() + 1], 3);
    ASSERT_EQ(example.tokens.back(), 3);
    ASSERT_EQ(std::count(example.segments.begin(), example.segments.end(), 0),
              static_cast<long>(a.size()) + 2);
    ASSERT_TRUE(std::is_sorted(example.segments.begin(), example.segments.end()));
    const Place last = places_[a.back()], first = places_[b.front()];
    if (example.next_sentence == 0) {
      ASSERT_EQ(last.document, first.document);
      ASSERT_LT(a.back(), b.front());
      ASSERT_LE(first.sentence - last.sentence, 1 + 12);
    } else {
      ASSERT_NE(last.document, first.document) << "chance 300^-10";
    }
  }
}

TEST_F(SentencePairsTest, WithoutTruncationTheSentencesAreUsedUpInOrder) {
  // Sentences of one token never overshoot the target, so nothing is cut: A and true B's together are the
  // documents.
  const auto file = text(200, 40, 1);
  const auto data = sentence_pairs(file, {.sequence_length = 19, .seed = 4});
  int32_t next = 5;
  for (int64_t i = 0; i < data->size(); ++i) {
    const Example example = data->get(i);
    for (const int32_t token : segment(example, 0)) ASSERT_EQ(token, next++);
    if (example.next_sentence == 0) {
      for (const int32_t token : segment(example, 1)) ASSERT_EQ(token, next++);
    }
  }
  EXPECT_EQ(next, static_cast<int32_t>(places_.size()));
}

TEST_F(SentencePairsTest, HalfOfTheChunksThatCanContinueDo) {
  // Documents of exactly two sentences in one chunk: one coin each; a random B leaves a single sentence,
  // always random.
  std::vector<std::vector<std::vector<int32_t>>> documents(4000, {{10, 11}, {12, 13}});
  const auto file = std::make_shared<TokenFile>(token_file("two", documents));
  const auto data = sentence_pairs(file, {.sequence_length = 32, .seed = 5, .short_sequence_probability = 0});
  int continued = 0;
  for (int64_t i = 0; i < data->size(); ++i) continued += data->get(i).next_sentence == 0;
  EXPECT_NEAR(continued, 2000, 3 * std::sqrt(1000.0));
  EXPECT_EQ(data->size(), continued + 2 * (4000 - continued));
}

TEST_F(SentencePairsTest, LoneSentencesGetARandomPartner) {
  std::vector<std::vector<std::vector<int32_t>>> documents(100, {{10, 11, 12}});
  const auto file = std::make_shared<TokenFile>(token_file("lone", documents));
  const auto data = sentence_pairs(file, {.sequence_length = 32});
  ASSERT_EQ(data->size(), 100);
  for (int64_t i = 0; i < 100; ++i) EXPECT_EQ(data->get(i).next_sentence, 1);
}

TEST_F(SentencePairsTest, ATenthOfTheDocumentsAimsAtShortSequences) {
  // Documents of 1,000 one-token sentences. Full ones give full examples but for the last few; a short target
  // t, uniform in [2, 125], gives examples of at most t + 3 tokens throughout.
  std::vector<std::vector<std::vector<int32_t>>> documents(2000);
  for (size_t d = 0; d < documents.size(); ++d) documents[d].assign(1000, {static_cast<int32_t>(10 + d)});
  const auto file = std::make_shared<TokenFile>(token_file("long", documents, NumberTokenizer(5000)));
  const auto data = sentence_pairs(file, {.sequence_length = 128, .seed = 6});
  std::map<int32_t, size_t> longest;
  for (int64_t i = 0; i < data->size(); ++i) {
    const Example example = data->get(i);
    auto& length = longest[example.tokens[1]];
    length = std::max(length, example.tokens.size());
  }
  ASSERT_EQ(longest.size(), 2000u);
  int short_ones = 0;
  double sum = 0;
  for (const auto& [document, length] : longest) {
    short_ones += length < 128;
    if (length < 128) sum += static_cast<double>(length);
  }
  // One target in 124 is the full length after all.
  const double expected = 2000 * 0.1 * 123 / 124;
  EXPECT_NEAR(short_ones, expected, 3 * std::sqrt(expected * 0.9));
  EXPECT_NEAR(sum / short_ones, (5 + 127) / 2.0, 3 * 123 / std::sqrt(12.0 * short_ones));
}

TEST_F(SentencePairsTest, PartnersComeFromEverywhereEquallyOften) {
  const int count = 50;
  std::vector<std::vector<std::vector<int32_t>>> documents(count);
  for (int d = 0; d < count; ++d) documents[d] = {{10 + d}};
  const auto file = std::make_shared<TokenFile>(token_file("small", documents));
  const auto data = sentence_pairs(file, {.sequence_length = 16, .seed = 7, .duplicate = 400});
  std::vector<double> drawn(count);
  for (int64_t i = 0; i < data->size(); ++i) {
    const Example example = data->get(i);
    EXPECT_NE(example.tokens[1], example.tokens[3]);
    ++drawn[example.tokens[3] - 10];
  }
  double chi_square = 0;
  for (const double n : drawn) chi_square += (n - 400) * (n - 400) / 400;
  EXPECT_NEAR(chi_square, count - 1, 4 * std::sqrt(2.0 * (count - 1)));
}

TEST_F(SentencePairsTest, TruncationTakesFromBothEndsOfTheLongerSegment) {
  std::vector<std::vector<std::vector<int32_t>>> documents(2000);
  for (auto& document : documents) {
    document.resize(2);
    for (int i = 0; i < 50; ++i) document[1].push_back(200 + i);
    for (int i = 0; i < 10; ++i) document[0].push_back(100 + i);
  }
  const auto file = std::make_shared<TokenFile>(token_file("cut", documents));
  const auto data = sentence_pairs(file, {.sequence_length = 43, .seed = 8, .short_sequence_probability = 0});
  double front = 0, n = 0;
  for (int64_t i = 0; i < data->size(); ++i) {
    const Example example = data->get(i);
    if (example.next_sentence != 0) continue;
    const auto a = segment(example, 0), b = segment(example, 1);
    ASSERT_EQ(a.size(), 10u);
    ASSERT_EQ(b.size(), 30u);
    front += b.front() - 200;
    ++n;
  }
  EXPECT_GT(n, 500);
  EXPECT_NEAR(front / n, 10, 3 * std::sqrt(20 * 0.25 / n));
}

TEST_F(SentencePairsTest, DependsOnTheSeedAndThePassButNotOnTheThreads) {
  const auto file = text(30'000, 4, 5);
  PairOptions options{.sequence_length = 32, .seed = 1, .duplicate = 2, .threads = 1};
  const auto one = sentence_pairs(file, options);
  options.threads = 4;
  const auto four = sentence_pairs(file, options);
  options.seed = 2;
  const auto other = sentence_pairs(file, options);
  ASSERT_EQ(one->size(), four->size());
  int same_as_other = 0, checked = 0;
  for (int64_t i = 0; i < std::min(one->size(), other->size()); i += 97, ++checked) {
    ASSERT_EQ(one->get(i).tokens, four->get(i).tokens);
    same_as_other += one->get(i).tokens == other->get(i).tokens;
  }
  EXPECT_LT(same_as_other, checked / 4);
}

TEST_F(SentencePairsTest, NeedsClsAndSepAndRoom) {
  const auto gpt = std::make_shared<TokenFile>(token_file("gpt", {{{5, 6}}}, NumberTokenizer(100, false)));
  EXPECT_THAT(error_of([&] { sentence_pairs(gpt, {}); }), HasSubstr("no [CLS] and [SEP]"));
  const auto bert = std::make_shared<TokenFile>(token_file("bert", {{{5, 6}}}));
  EXPECT_THAT(error_of([&] { sentence_pairs(bert, {.sequence_length = 4}); }), HasSubstr("too short"));
  EXPECT_EQ(sentence_pairs(bert, {.sequence_length = 5})->get(0).tokens.size(), 5u);
}

}  // namespace
}  // namespace tessera
