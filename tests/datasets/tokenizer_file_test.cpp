#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "datasets/tokenizer.h"
#include "recipes/error.h"

namespace tessera {
namespace {

using Json = nlohmann::json;
using ::testing::HasSubstr;

const char* const wordpiece = R"({"version":"1.0","truncation":{"max_length":8},"padding":null,
  "added_tokens":[{"id":0,"content":"[UNK]","special":true},{"id":5,"content":"[NEW]","special":true}],
  "normalizer":{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true},
  "pre_tokenizer":{"type":"BertPreTokenizer"},"post_processor":null,"decoder":{"type":"WordPiece","prefix":"##","cleanup":true},
  "model":{"type":"WordPiece","unk_token":"[UNK]","continuing_subword_prefix":"##","max_input_chars_per_word":100,
           "vocab":{"[UNK]":0,"a":1,"##b":2,"##bc":3,"!":4}}})";

const char* const bpe = R"({"added_tokens":[],"normalizer":null,
  "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false},"post_processor":null,"decoder":{"type":"ByteLevel"},
  "model":{"type":"BPE","unk_token":null,"vocab":{"a":0,"b":1,"c":2,"ab":3,"abc":4,"Ġ":5},"merges":[["a","b"],"ab c"]}})";

std::string refusal(const std::string& json) {
  try {
    Tokenizer::parse(json, "t.json");
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

std::string changed(const char* base, const char* pointer, const Json& value) {
  Json json = Json::parse(base);
  json[Json::json_pointer(pointer)] = value;
  return refusal(json.dump());
}

TEST(TokenizerFile, WordPieceEncodesAndDecodes) {
  const TokenizerPtr t = Tokenizer::parse(wordpiece, "t.json");
  EXPECT_EQ(t->encode("ABC ab![NEW]x"), (std::vector<int32_t>{1, 3, 1, 2, 4, 5, 0}));
  EXPECT_EQ(t->decode({1, 3, 1, 2, 4, 5, 0}), "abc ab!");
  EXPECT_EQ(t->decode({1, 3, 5}, false), "abc [NEW]");
  EXPECT_EQ(t->vocab_size(), 6);
  EXPECT_EQ(t->id_of("[NEW]"), 5);
  EXPECT_EQ(t->id_of("nothing"), -1);
  EXPECT_EQ(t->token_of(5), "[NEW]");
  EXPECT_EQ(t->token_of(77), "");
  EXPECT_TRUE(t->continues_word(3));
  EXPECT_FALSE(t->continues_word(1));
  EXPECT_EQ(t->special().unknown, 0);
  EXPECT_EQ(t->special().pad, -1);
}

TEST(TokenizerFile, OffsetsCountCodePoints) {
  const TokenizerPtr t = Tokenizer::parse(wordpiece, "t.json");
  const Encoding e = t->encode_with_offsets("\u00E9\u6F22 A\u0301BC!");
  EXPECT_EQ(e.ids, (std::vector<int32_t>{0, 0, 1, 3, 4}));
  EXPECT_EQ(e.offsets, (std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {1, 2}, {3, 4}, {5, 7}, {7, 8}}));
}

TEST(TokenizerFile, IllFormedUtf8BecomesReplacementCharacters) {
  const TokenizerPtr t = Tokenizer::parse(wordpiece, "t.json");
  EXPECT_EQ(t->encode("a\xE2\x82! \xFF"), (std::vector<int32_t>{1, 4}));  // BERT drops U+FFFD
  EXPECT_EQ(t->encode_with_offsets("\xFF\xF0\x9F\x98 a").offsets.back(), (std::pair<int64_t, int64_t>{3, 4}));
}

TEST(TokenizerFile, ByteLevelMergesByRank) {
  const TokenizerPtr t = Tokenizer::parse(bpe, "t.json");
  EXPECT_EQ(t->encode("abc abab"), (std::vector<int32_t>{4, 5, 3, 3}));
  EXPECT_EQ(t->decode({4, 5, 3, 3}), "abc abab");
  EXPECT_FALSE(t->continues_word(5));
  EXPECT_TRUE(t->continues_word(4));
}

TEST(TokenizerFile, LongWordsMergeAsShortOnes) {
  const TokenizerPtr t = Tokenizer::parse(bpe, "t.json");
  std::string word;
  std::vector<int32_t> expected;
  for (int i = 0; i < 5000; ++i) {
    word += "abcab";
    expected.insert(expected.end(), {4, 3});
  }
  EXPECT_EQ(t->encode(word), expected);
}

TEST(TokenizerFile, JsonRoundTrips) {
  for (const char* file : {wordpiece, bpe}) {
    const std::string once = Tokenizer::parse(file, "t.json")->json();
    EXPECT_EQ(Tokenizer::parse(once, "t.json")->json(), once);
  }
  EXPECT_THAT(Tokenizer::parse(wordpiece, "t.json")->json(), HasSubstr(R"("truncation":{"max_length":8})"));
}

TEST(TokenizerFile, UnsupportedKindsAreNamedWithWhatIsSupported) {
  EXPECT_THAT(changed(wordpiece, "/model/type", "Unigram"),
              HasSubstr("'Unigram' is not supported here; valid: WordPiece, BPE"));
  EXPECT_THAT(changed(wordpiece, "/normalizer/type", "NFC"), HasSubstr("t.json: normalizer: type 'NFC'"));
  EXPECT_THAT(changed(wordpiece, "/pre_tokenizer/type", "Whitespace"), HasSubstr("valid: BertPreTokenizer"));
  EXPECT_THAT(changed(bpe, "/pre_tokenizer/type", "Sequence"), HasSubstr("valid: ByteLevel"));
  EXPECT_THAT(changed(bpe, "/normalizer", Json{{"type", "NFC"}}), HasSubstr("'NFC' is not supported"));
  EXPECT_THAT(changed(bpe, "/post_processor", Json{{"type", "Sequence"}}),
              HasSubstr("valid: ByteLevel, RobertaProcessing"));
  EXPECT_THAT(changed(bpe, "/decoder/type", "Metaspace"), HasSubstr("valid: ByteLevel"));
  EXPECT_THAT(changed(bpe, "/model/byte_fallback", true), HasSubstr("byte_fallback"));
  EXPECT_THAT(changed(bpe, "/model/dropout", 0.5), HasSubstr("dropout"));
  EXPECT_THAT(changed(bpe, "/model/end_of_word_suffix", "</w>"), HasSubstr("end_of_word_suffix"));
  EXPECT_THAT(changed(bpe, "/version", "2.0"), HasSubstr("valid: 1.0"));
}

TEST(TokenizerFile, HostileFilesAreRefused) {
  EXPECT_THAT(refusal(""), HasSubstr("t.json: not valid JSON"));
  EXPECT_THAT(refusal("[]"), HasSubstr("must be an object"));
  EXPECT_THAT(refusal("{}"), HasSubstr("model: missing"));
  EXPECT_THAT(refusal("[[{\"model\":{\"vocab\":{}}}]]"), HasSubstr("must be an object"));
  EXPECT_THAT(refusal(std::string(100000, '[')), HasSubstr("nested too deeply"));
  EXPECT_THAT(refusal(R"({"model":{"vocab":{"a":0,"a":1}}})"), HasSubstr("'a' occurs twice"));
  EXPECT_THAT(refusal(R"({"model":{"type":"BPE","type":"BPE"}})"), HasSubstr("the key 'type' occurs twice"));
  EXPECT_THAT(changed(wordpiece, "/model/vocab", Json::array({"a", "b"})),
              HasSubstr("must be an object that maps tokens"));
  EXPECT_THAT(changed(wordpiece, "/model/vocab", Json::object()), HasSubstr("missing or empty"));
  EXPECT_THAT(changed(wordpiece, "/model/vocab/a", 2), HasSubstr("have the same id 2"));
}

TEST(TokenizerFile, WrongValuesAreRefused) {
  for (const Json& id : {Json(4000000000), Json(-1), Json(9007199254740993), Json(18446744073709551615u)}) {
    EXPECT_THAT(changed(wordpiece, "/model/vocab/a", id), HasSubstr("is out of range")) << id;
  }
  for (const Json& id : {Json("1"), Json(1.5), Json(nullptr), Json(true), Json::array({1}), Json::object()}) {
    EXPECT_THAT(changed(wordpiece, "/model/vocab/a", id), HasSubstr("not a whole number")) << id;
  }
  EXPECT_THAT(changed(wordpiece, "/model/unk_token", "[X]"), HasSubstr("'[X]' is not in the vocabulary"));
  EXPECT_THAT(changed(wordpiece, "/model/max_input_chars_per_word", -1),
              HasSubstr("max_input_chars_per_word"));
  EXPECT_THAT(changed(wordpiece, "/normalizer/lowercase", "yes"),
              HasSubstr("normalizer.lowercase: must be true or false"));
  EXPECT_THAT(changed(wordpiece, "/normalizer", 3), HasSubstr("must be an object or null"));
  EXPECT_THAT(changed(wordpiece, "/pre_tokenizer", nullptr), HasSubstr("pre_tokenizer: missing"));
  EXPECT_THAT(changed(bpe, "/model/merges/0", "a"), HasSubstr("not of the form"));
  EXPECT_THAT(changed(bpe, "/model/merges/0", "a b c"), HasSubstr("not of the form"));
  EXPECT_THAT(changed(bpe, "/model/merges/0", Json::array({"a"})), HasSubstr("two parts"));
  EXPECT_THAT(changed(bpe, "/model/merges/0", Json::array({"a", "b", "c"})), HasSubstr("two parts"));
  EXPECT_THAT(changed(bpe, "/model/merges/0", Json::array({"a", 1})), HasSubstr("every merge must be"));
  EXPECT_THAT(changed(bpe, "/model/merges/0", 7), HasSubstr("every merge must be"));
  EXPECT_THAT(changed(bpe, "/model/merges/0", Json::array({"a", "x"})),
              HasSubstr("the token 'x' is not in the vocabulary"));
  EXPECT_THAT(changed(bpe, "/model/merges/0", Json::array({"b", "a"})),
              HasSubstr("the token 'ba' is not in the vocabulary"));
}

TEST(TokenizerFile, WrongAddedTokensAreRefused) {
  const auto with = [](const Json& list) { return changed(wordpiece, "/added_tokens", list); };
  EXPECT_THAT(with(3), HasSubstr("must be a list"));
  EXPECT_THAT(with(Json::array({3})), HasSubstr("added_tokens[0]: must be an object"));
  EXPECT_THAT(with({{{"id", "x"}, {"content", "y"}}}), HasSubstr("added_tokens[0].id"));
  EXPECT_THAT(with({{{"id", 4294967296}, {"content", "y"}}}), HasSubstr("out of range"));
  EXPECT_THAT(with({{{"id", 5}}}), HasSubstr("content"));
  EXPECT_THAT(with({{{"id", 5}, {"content", "y"}, {"lstrip", 1}}}),
              HasSubstr("lstrip: must be true or false"));
  EXPECT_THAT(with({{{"id", 9}, {"content", "y"}}}), HasSubstr("the next free id is 5"));
  EXPECT_THAT(with({{{"id", 3}, {"content", "a"}}}), HasSubstr("the model's vocabulary says 1"));
  EXPECT_THAT(with({{{"id", 1}, {"content", "a"}}, {{"id", 1}, {"content", "a"}}}),
              HasSubstr("occurs twice"));
  EXPECT_THAT(with({{{"id", 5}, {"content", "\u0301"}, {"normalized", true}}}), HasSubstr("nothing is left"));
}

TEST(TokenizerFile, EveryTruncationIsRefused) {
  for (const char* file : {wordpiece, bpe}) {
    const std::string whole = file;
    for (size_t size = 0; size < whole.size(); ++size)
      EXPECT_NE(refusal(whole.substr(0, size)), "accepted") << size;
  }
}

TEST(TokenizerFile, MissingFilesAreNamed) {
  try {
    Tokenizer::load("/nonexistent/tokenizer.json");
    FAIL();
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), HasSubstr("/nonexistent/tokenizer.json"));
  }
}

}  // namespace
}  // namespace tessera
