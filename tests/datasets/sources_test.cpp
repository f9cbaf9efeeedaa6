#include <gmock/gmock.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "datasets/nvidia_bert.h"
#include "datasets/open.h"
#include "tests/datasets/text_fixture.h"

namespace tessera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class Windows : public InFolder {
 protected:
  // a stream of 3 + 1 + 5 tokens, and separators
  std::string small() const {
    return token_file("small", {{{10, 11}, {12}}, {{20}}, {{30, 31, 32}, {33, 34}}});
  }
  std::vector<std::vector<int32_t>> all(const std::string& path, const WindowOptions& options) const {
    const auto data = token_windows(std::make_shared<TokenFile>(path), options);
    std::vector<std::vector<int32_t>> result;
    for (int64_t i = 0; i < data->size(); ++i) result.push_back(data->get(i).tokens);
    return result;
  }
};

TEST_F(Windows, JoinedDocumentsOverlapByTheLabelOnly) {
  EXPECT_THAT(
      all(small(), {.window = 4, .stride = 3, .separator = 0}),
      ElementsAre(ElementsAre(10, 11, 12, 0), ElementsAre(0, 20, 0, 30), ElementsAre(30, 31, 32, 33)));
  EXPECT_THAT(all(small(), {.window = 4, .stride = 4}),
              ElementsAre(ElementsAre(10, 11, 12, 20), ElementsAre(30, 31, 32, 33)));
  EXPECT_THAT(all(small(), {.window = 12, .stride = 11, .separator = 0}), ElementsAre(::testing::SizeIs(12)));
  EXPECT_TRUE(all(small(), {.window = 13, .stride = 12, .separator = 0}).empty());
}

TEST_F(Windows, DocumentsStayApartWhenAsked) {
  EXPECT_THAT(all(small(), {.window = 4, .stride = 3, .pack = Pack::documents, .separator = 0}),
              ElementsAre(ElementsAre(10, 11, 12, 0), ElementsAre(20, 0), ElementsAre(30, 31, 32, 33),
                          ElementsAre(33, 34, 0)));
  EXPECT_THAT(all(small(), {.window = 4, .stride = 4, .pack = Pack::documents, .prefix = 2, .suffix = 3}),
              ElementsAre(ElementsAre(2, 10, 11, 12, 3), ElementsAre(2, 20, 3),
                          ElementsAre(2, 30, 31, 32, 33, 3), ElementsAre(2, 34, 3)));
}

TEST_F(Windows, CoverEveryTokenOfARandomText) {
  RandomStream random(5);
  std::vector<std::vector<std::vector<int32_t>>> documents(200);
  std::vector<int32_t> stream;
  for (auto& document : documents) {
    document.resize(1);
    for (uint32_t i = 0; i < 1 + random.below(30); ++i)
      document[0].push_back(static_cast<int32_t>(10 + random.below(900)));
    stream.insert(stream.end(), document[0].begin(), document[0].end());
    stream.push_back(0);
  }
  const auto path = token_file("random", documents);
  for (const int64_t length : {1, 2, 7, 64}) {
    const auto joined = all(path, {.window = length + 1, .stride = length, .separator = 0});
    ASSERT_EQ(static_cast<int64_t>(joined.size()), (static_cast<int64_t>(stream.size()) - 1) / length);
    for (size_t i = 0; i < joined.size(); ++i) {
      ASSERT_EQ(joined[i],
                std::vector<int32_t>(stream.begin() + i * length, stream.begin() + (i + 1) * length + 1));
    }
    // By documents each token but a document's first is predicted exactly once.
    int64_t predicted = 0;
    for (const auto& window :
         all(path, {.window = length + 1, .stride = length, .pack = Pack::documents, .separator = 0})) {
      predicted += static_cast<int64_t>(window.size()) - 1;
    }
    EXPECT_EQ(predicted, static_cast<int64_t>(stream.size() - documents.size()));
  }
}

class Nvidia : public InFolder {
 protected:
  nlohmann::json make(const std::string& name, const std::string& variant, int rows, int seed) const {
    const std::string command = ".venv/bin/python tests/datasets/make_nvidia_file.py " + at(name) + " " +
                                at("rows.json") + " " + variant + " " + std::to_string(rows) + " 64 10 " +
                                std::to_string(seed);
    if (std::system(command.c_str()) != 0) throw std::runtime_error("failed: " + command);
    return nlohmann::json::parse(bytes_of(at("rows.json")));
  }
  static void expect_equal(const Example& example, const nlohmann::json& row) {
    EXPECT_EQ(example.tokens, row["tokens"].get<std::vector<int32_t>>());
    EXPECT_EQ(example.segments, row["segments"].get<std::vector<int32_t>>());
    EXPECT_EQ(example.masked_positions, row["positions"].get<std::vector<int32_t>>());
    EXPECT_EQ(example.masked_ids, row["labels"].get<std::vector<int32_t>>());
    EXPECT_EQ(example.next_sentence, row["next"].get<int>());
  }
};

TEST_F(Nvidia, BothVariantsAreReadAsTheyAre) {
  for (const std::string variant : {"fixed", "variable"}) {
    std::filesystem::create_directories(at(variant));
    auto rows = make(variant + "/b.hdf5", variant, 1500, 1);
    const auto first = make(variant + "/a.h5", variant, 5, 2);
    rows.insert(rows.begin(), first.begin(), first.end());
    const auto data = open_dataset({at(variant)}, {.sequence_length = 64});
    ASSERT_EQ(data->size(), 1505);
    for (int64_t i = 0; i < data->size(); ++i) {
      expect_equal(data->get(i), rows[i]);
      EXPECT_EQ(data->get(i).index, i);
    }
    const auto facts = describe_dataset({at(variant)}, true);
    EXPECT_EQ(facts.num_examples, 1505);
    EXPECT_EQ(facts.num_files, 2);
    EXPECT_EQ(facts.sequence_length, variant == "fixed" ? 64 : 0);
  }
}

TEST_F(Nvidia, ManyThreadsAndASmallCacheGiveTheSame) {
  const auto rows = make("a.h5", "fixed", 5000, 3);
  const auto data = nvidia_bert({at("a.h5")}, 64, 1);  // room for one block of the five
  std::vector<std::jthread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      RandomStream random(t);
      for (int i = 0; i < 10; ++i) {
        const int64_t row = i % 5 * 1000 + random.below(1000);
        EXPECT_EQ(data->get(row).tokens, rows[row]["tokens"].get<std::vector<int32_t>>());
      }
    });
  }
}

TEST_F(Nvidia, MistakesAreExplained) {
  make("fixed.h5", "fixed", 5, 1);
  make("variable.h5", "variable", 500, 1);
  const auto refused = [&](const std::string& name, const OpenOptions& options) {
    return error_of([&] {
      const auto data = open_dataset({at(name)}, options);
      for (int64_t i = 0; i < data->size(); ++i) data->get(i);
    });
  };
  EXPECT_THAT(refused("fixed.h5", {.sequence_length = 128}), HasSubstr("holds sequences of 64 tokens"));
  EXPECT_THAT(refused("variable.h5", {.sequence_length = 32}), HasSubstr("above sequence_length"));
  EXPECT_THAT(refused("fixed.h5", {.kind = ExampleKind::causal, .sequence_length = 64}),
              HasSubstr("mlm_nsp"));
  auto file = hdf5::File::append(at("fixed.h5"));
  file.write_slice("/masked_lm_positions", {0, 0}, {5, 10}, std::vector<int32_t>(50, 64).data());
  file.close();
  EXPECT_THAT(refused("fixed.h5", {.sequence_length = 64}), HasSubstr("outside the sequence"));
}

class Open : public InFolder {};

TEST_F(Open, GivesWhatTheObjectiveWants) {
  std::vector<std::vector<std::vector<int32_t>>> documents(40, {{10, 11, 12}, {13, 14}, {15, 16, 17, 18}});
  const auto path = token_file("a", documents);
  const auto pairs = open_dataset({path}, {.kind = ExampleKind::pairs, .sequence_length = 16});
  EXPECT_EQ(pairs->get(0).tokens.front(), 2);
  EXPECT_GE(pairs->get(0).next_sentence, 0);
  const auto single = open_dataset({path}, {.kind = ExampleKind::single, .sequence_length = 11});
  EXPECT_THAT(single->get(0).tokens, ElementsAre(2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 3));
  const auto apart =
      open_dataset({path}, {.kind = ExampleKind::single, .sequence_length = 16, .pack = Pack::documents});
  EXPECT_EQ(apart->size(), 40);
  const auto causal = open_dataset({path}, {.kind = ExampleKind::causal, .sequence_length = 10});
  EXPECT_THAT(causal->get(1).tokens, ElementsAre(10, 11, 12, 13, 14, 15, 16, 17, 18, 3, 10));
}

TEST_F(Open, JoinsFilesOfOneKind) {
  token_file("a", {{{10, 11, 12, 13}}});
  token_file("b", {{{20, 21, 22, 23}}});
  const auto data =
      open_dataset({folder_}, {.kind = ExampleKind::causal, .sequence_length = 3, .pack = Pack::documents});
  EXPECT_THAT(data->get(0).tokens, ElementsAre(10, 11, 12, 13));
  EXPECT_THAT(data->get(2).tokens, ElementsAre(20, 21, 22, 23));
  const auto facts = describe_dataset({at("a.h5"), at("b.h5")}, true);
  EXPECT_EQ(facts.kind, "token file");
  EXPECT_EQ(facts.num_tokens, 8);
  EXPECT_EQ(facts.num_documents, 2);
  EXPECT_EQ(facts.vocab_size, 1000);
  EXPECT_NEAR(facts.unigram_entropy, std::log(4.0), 1e-12);
  EXPECT_EQ(facts.tokenizer_json, "{\"numbers\": true}");
}

TEST_F(Open, RecipesMixSourcesByWeight) {
  DataSection section;
  section.sequence_length = 4;
  section.train.sources = {{token_file("a", {std::vector<std::vector<int32_t>>(100, {10, 11, 12, 13})}), 3},
                           {token_file("b", {std::vector<std::vector<int32_t>>(50, {20, 21, 22, 23})}), 1}};
  const auto mix = open_training_data(section, ExampleKind::causal, 1);
  EXPECT_EQ(mix.epoch_size, 150);
  int from_first = 0;
  for (int64_t i = 0; i < 10'000; ++i) {
    const Example example = mix.samples->get(i);
    ASSERT_EQ(example.index, i);
    from_first += example.tokens[0] < 20;
  }
  EXPECT_EQ(from_first, 7500);
  EXPECT_EQ(open_validation_data(section, ExampleKind::causal, 1), nullptr);
  section.validation = at("b.h5");
  EXPECT_EQ(open_validation_data(section, ExampleKind::causal, 1)->size(), 50);
}

TEST_F(Open, RecipesMayForbidShuffling) {
  DataSection section;
  section.sequence_length = 1;
  section.shuffle = false;
  section.train.sources = {{token_file("a", {{{10, 11, 12}}}), 1}};
  const auto data = open_training_data(section, ExampleKind::causal, 1);
  for (int64_t i = 0; i < 9; ++i) EXPECT_EQ(data.samples->get(i).tokens[0], 10 + i % 3);
}

TEST_F(Open, MistakesAreExplained) {
  const auto refused = [&](const std::vector<std::string>& paths, const OpenOptions& options = {}) {
    return error_of([&] { open_dataset(paths, options); });
  };
  const auto path = token_file("train", {{{10, 11, 12, 13}}});
  const auto gpt = token_file("gpt", {{{10, 11, 12, 13}}}, NumberTokenizer(1000, false));
  EXPECT_THAT(refused({at("tain.h5")}), AllOf(HasSubstr("no such file"), HasSubstr("train.h5")));
  EXPECT_THAT(refused({at("tain/a/b.h5")}), HasSubstr("no such file"));
  EXPECT_THAT(refused({}), HasSubstr("no data file"));
  std::filesystem::create_directories(at("nothing"));
  EXPECT_THAT(refused({at("nothing")}), HasSubstr("no .h5"));
  EXPECT_THAT(refused({write("a.txt", "text")}), HasSubstr("a.txt"));
  hdf5::File::create(at("other.h5")).write_text("/a", "b");
  EXPECT_THAT(refused({at("other.h5")}), HasSubstr("unknown content"));
  EXPECT_THAT(refused({path, at("other.h5")}), HasSubstr("unknown content"));
  EXPECT_THAT(refused({gpt}), HasSubstr("no [CLS] and [SEP]"));
  EXPECT_THAT(refused({gpt}, {.kind = ExampleKind::single}), HasSubstr("no [CLS] and [SEP]"));
  EXPECT_THAT(refused({path}, {.kind = ExampleKind::causal, .sequence_length = 100}),
              HasSubstr("4 tokens are too few"));
  EXPECT_THAT(refused({path}, {.sequence_length = 4}), HasSubstr("too short"));
}

}  // namespace
}  // namespace tessera
