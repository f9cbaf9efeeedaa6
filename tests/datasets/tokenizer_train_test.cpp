#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "datasets/tokenizer/train.h"
#include "recipes/error.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;
using Kind = TrainerOptions::Kind;

TrainerOptions options_of(Kind kind, int64_t vocab_size) {
  TrainerOptions options;
  options.kind = kind;
  options.vocab_size = vocab_size;
  return options;
}

TokenizerPtr trained(const TrainerOptions& options, const std::vector<std::string>& texts) {
  WordCounter words(options);
  for (const auto& text : texts) words.add(text);
  return train(options, words);
}

std::string refusal(const TrainerOptions& options, const std::vector<std::string>& texts) {
  try {
    trained(options, texts);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(TokenizerTraining, WordPieceJoinsTheMostFrequentPairs) {
  const TokenizerPtr t = trained(options_of(Kind::wordpiece, 100), {"Hug pug HUG", "hug, bun"});
  EXPECT_EQ(t->token_of(0), "[PAD]");
  EXPECT_EQ(t->special().mask, 4);
  EXPECT_EQ(t->encode("hug pug"), (std::vector<int32_t>{t->id_of("hug"), t->id_of("p"), t->id_of("##ug")}));
  EXPECT_EQ(t->id_of("bun"), -1);  // seen once
  EXPECT_EQ(t->decode(t->encode("hug bun")), "hug bun");
}

TEST(TokenizerTraining, ByteLevelCoversAllBytes) {
  const TokenizerPtr t = trained(options_of(Kind::byte_level_bpe, 260), {"low low lower", "low"});
  EXPECT_EQ(t->vocab_size(), 260);
  EXPECT_EQ(t->special().end, 0);
  EXPECT_EQ(t->special().begin, 0);
  EXPECT_EQ(t->encode("low"), (std::vector<int32_t>{t->id_of("low")}));
  std::string bytes;
  for (int i = 0; i < 128; ++i) bytes.push_back(static_cast<char>(i));
  EXPECT_EQ(t->decode(t->encode(bytes + "\u6F22\U0001F642")), bytes + "\u6F22\U0001F642");
}

TEST(TokenizerTraining, TheOrderOfCountingDoesNotMatter) {
  for (const Kind kind : {Kind::wordpiece, Kind::byte_level_bpe}) {
    const TrainerOptions options = options_of(kind, 300);
    std::vector<std::string> texts;
    for (int i = 0; i < 200; ++i)
      texts.push_back("text " + std::to_string(i * i % 37) + " of words " + std::string(i % 7, 'a'));
    WordCounter first(options), second(options);
    std::thread a([&] {
      for (size_t i = 0; i < texts.size(); i += 2) first.add(texts[i]);
    });
    std::thread b([&] {
      for (size_t i = 1; i < texts.size(); i += 2) second.add(texts[i]);
    });
    a.join();
    b.join();
    second.merge(std::move(first));
    EXPECT_EQ(train(options, second)->json(), trained(options, texts)->json());
  }
}

TEST(TokenizerTraining, WhatCannotBeTrainedIsRefused) {
  EXPECT_THAT(refusal(options_of(Kind::wordpiece, 100), {" ", ""}), HasSubstr("no text"));
  EXPECT_THAT(refusal(options_of(Kind::wordpiece, 6), {"abc"}),
              HasSubstr("vocab_size 6 is too small; valid: at least 10"));
  EXPECT_THAT(refusal(options_of(Kind::byte_level_bpe, 256), {"abc"}), HasSubstr("at least 257"));
  TrainerOptions options = options_of(Kind::wordpiece, 100);
  options.special_tokens = {"[PAD]"};
  EXPECT_THAT(refusal(options, {"abc"}), HasSubstr("'[UNK]'"));
  options.special_tokens = {"[UNK]", "[UNK]"};
  EXPECT_THAT(refusal(options, {"abc"}), HasSubstr("occurs twice"));
  EXPECT_THROW(trainer_kind("unigram"), Error);
}

}  // namespace
}  // namespace tessera
