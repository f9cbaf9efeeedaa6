#include "datasets/tokenizer/train.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "datasets/tokenizer/bert_text.h"
#include "datasets/tokenizer/gpt2_text.h"
#include "datasets/tokenizer/pair_merger.h"
#include "datasets/tokenizer/spec.h"
#include "recipes/error.h"

namespace tessera {

using Json = TokenizerSpec::Json;
using Kind = TrainerOptions::Kind;

struct WordCounter::State {
  std::optional<BertText> bert;
  std::optional<Gpt2Text> gpt2;
  StringMap counts;
  void count(std::string_view word, int64_t times) { counts.value(counts.insert(word)) += times; }
};

namespace {

std::vector<std::string> special_tokens(const TrainerOptions& options) {
  if (!options.special_tokens.empty()) return options.special_tokens;
  if (options.kind == Kind::byte_level_bpe) return {"<|endoftext|>"};
  return {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};
}

/// Words in a fixed order, whatever the order of counting.
std::vector<std::pair<std::string_view, int64_t>> sorted(const StringMap& counts) {
  std::vector<std::pair<std::string_view, int64_t>> words;
  words.reserve(counts.size());
  for (size_t i = 0; i < counts.size(); ++i) words.emplace_back(counts.key(i), counts.value(i));
  std::sort(words.begin(), words.end());
  return words;
}

std::string text_of_point(char32_t c) {
  std::string text;
  unicode::append(text, c);
  return text;
}

/// The most frequent characters, in order of code point.
std::set<char32_t> wordpiece_alphabet(const StringMap& counts, int64_t limit) {
  std::map<char32_t, int64_t> frequencies;
  for (size_t i = 0; i < counts.size(); ++i) {
    const std::string_view word = counts.key(i);
    for (const char* p = word.data(); p < word.data() + word.size();)
      frequencies[unicode::next(p)] += counts.value(i);
  }
  std::vector<std::pair<int64_t, char32_t>> ranking;
  for (const auto& [c, frequency] : frequencies) ranking.emplace_back(-frequency, c);
  std::sort(ranking.begin(), ranking.end());
  std::set<char32_t> alphabet;
  for (const auto& [frequency, c] : ranking) {
    if (static_cast<int64_t>(alphabet.size()) < limit) alphabet.insert(c);
  }
  return alphabet;
}

/// The characters that continue words, those in most words first: their ids decide ties, and the wheel
/// numbers them as it meets them in the random order of a hash table.
std::vector<char32_t> continuing_characters(const StringMap& counts) {
  std::map<char32_t, int64_t> occurrences;
  for (size_t i = 0; i < counts.size(); ++i) {
    const std::string_view word = counts.key(i);
    const char* p = word.data();
    for (unicode::next(p); p < word.data() + word.size();) ++occurrences[unicode::next(p)];
  }
  std::vector<char32_t> characters;
  for (const auto& [c, n] : occurrences) characters.push_back(c);
  std::stable_sort(characters.begin(), characters.end(),
                   [&](char32_t a, char32_t b) { return occurrences[a] > occurrences[b]; });
  return characters;
}

/// The characters as they start words, then as they continue them; characters outside the alphabet are left
/// out.
void add_wordpiece_words(PairMerger& merger, const StringMap& counts, int64_t limit) {
  std::map<char32_t, int32_t> starting, continuing;
  for (const char32_t c : wordpiece_alphabet(counts, limit)) starting[c] = merger.add_token(text_of_point(c));
  for (const char32_t c : continuing_characters(counts)) {
    if (starting.count(c)) continuing[c] = merger.add_token("##" + text_of_point(c));
  }
  std::vector<int32_t> symbols;
  for (const auto& [word, count] : sorted(counts)) {
    symbols.clear();
    for (const char* p = word.data(); p < word.data() + word.size();) {
      const bool first = p == word.data();
      const char32_t c = unicode::next(p);
      const auto& table = first ? starting : continuing;
      if (const auto found = table.find(c); found != table.end()) symbols.push_back(found->second);
    }
    merger.add_word(symbols, count);
  }
}

void add_byte_level_words(PairMerger& merger, const StringMap& counts) {
  std::array<std::pair<std::string, int>, 256> alphabet;
  for (int byte = 0; byte < 256; ++byte) {
    const char b = static_cast<char>(byte);
    alphabet[byte] = {to_byte_level({&b, 1}), byte};
  }
  std::sort(alphabet.begin(), alphabet.end());  // UTF-8 sorts by code point
  std::array<int32_t, 256> id_of_byte;
  for (const auto& [text, byte] : alphabet) id_of_byte[byte] = merger.add_token(text);
  std::vector<int32_t> symbols;
  for (const auto& [word, count] : sorted(counts)) {
    symbols.clear();
    for (const char b : word) symbols.push_back(id_of_byte[static_cast<unsigned char>(b)]);
    merger.add_word(symbols, count);
  }
}

Json byte_level(bool add_prefix_space, bool trim_offsets) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", add_prefix_space},
          {"trim_offsets", trim_offsets},
          {"use_regex", true}};
}

Json bert_template(int32_t cls, int32_t sep) {
  const auto token = [](const char* name, int type) {
    return Json{{"SpecialToken", {{"id", name}, {"type_id", type}}}};
  };
  const auto text = [](const char* name, int type) {
    return Json{{"Sequence", {{"id", name}, {"type_id", type}}}};
  };
  const auto special = [](const char* name, int32_t id) {
    return Json{{"id", name}, {"ids", Json::array({id})}, {"tokens", Json::array({name})}};
  };
  return {{"type", "TemplateProcessing"},
          {"single", Json::array({token("[CLS]", 0), text("A", 0), token("[SEP]", 0)})},
          {"pair", Json::array({token("[CLS]", 0), text("A", 0), token("[SEP]", 0), text("B", 1),
                                token("[SEP]", 1)})},
          {"special_tokens", {{"[CLS]", special("[CLS]", cls)}, {"[SEP]", special("[SEP]", sep)}}}};
}

void describe_wordpiece(TokenizerSpec& spec, const TrainerOptions& options, const PairMerger& merger) {
  spec.sections["normalizer"] = {{"type", "BertNormalizer"},
                                 {"clean_text", true},
                                 {"handle_chinese_chars", true},
                                 {"strip_accents", nullptr},
                                 {"lowercase", options.lowercase}};
  spec.sections["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
  const int32_t cls = merger.find_token("[CLS]"), sep = merger.find_token("[SEP]");
  if (cls >= 0 && sep >= 0) spec.sections["post_processor"] = bert_template(cls, sep);
  spec.sections["decoder"] = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  spec.model = {{"type", "WordPiece"}};
}

void describe_byte_level(TokenizerSpec& spec, const PairMerger& merger) {
  spec.sections["pre_tokenizer"] = byte_level(false, true);
  spec.sections["post_processor"] = byte_level(true, false);
  spec.sections["decoder"] = byte_level(true, true);
  spec.model = {{"type", "BPE"}};
  for (const auto& [a, b] : merger.merges()) spec.merges.emplace_back(merger.token(a), merger.token(b));
}

}  // namespace

Kind trainer_kind(std::string_view name) {
  if (name == "wordpiece") return Kind::wordpiece;
  if (name == "byte_level_bpe") return Kind::byte_level_bpe;
  throw Error(fmt::format("tokenizer kind '{}' is unknown{}", name,
                          valid_names(name, {"wordpiece", "byte_level_bpe"})));
}

WordCounter::WordCounter(const TrainerOptions& options) : state_(std::make_unique<State>()) {
  if (options.kind == Kind::byte_level_bpe) {
    state_->gpt2.emplace();
  } else {
    state_->bert.emplace(BertOptions{true, true, options.lowercase, options.lowercase});
  }
}
WordCounter::WordCounter(WordCounter&&) noexcept = default;
WordCounter& WordCounter::operator=(WordCounter&&) noexcept = default;
WordCounter::~WordCounter() = default;

void WordCounter::add(std::string_view text) {
  std::string mended;
  if (!unicode::is_valid(text)) text = mended = unicode::repaired(text);
  if (state_->bert)
    return state_->bert->each_word(text, [&](std::string_view word) { state_->count(word, 1); });
  while (!text.empty()) {
    const size_t length = state_->gpt2->next_word(text);
    state_->count(text.substr(0, length), 1);
    text.remove_prefix(length);
  }
}

void WordCounter::merge(WordCounter&& other) {
  const StringMap& counts = other.state_->counts;
  for (size_t i = 0; i < counts.size(); ++i) state_->count(counts.key(i), counts.value(i));
  other.state_->counts = {};
}

int64_t WordCounter::num_words() const { return static_cast<int64_t>(state_->counts.size()); }

TokenizerPtr train(const TrainerOptions& options, const WordCounter& words) {
  const bool wordpiece = options.kind == Kind::wordpiece;
  const StringMap& counts = words.state_->counts;
  if (counts.size() == 0) throw Error("training a tokenizer: there is no text to learn from");
  PairMerger merger(wordpiece ? "##" : "");
  TokenizerSpec spec;
  spec.origin = "the trained tokenizer";
  for (const char* key :
       {"truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    spec.sections[key] = nullptr;
  }
  for (const std::string& token : special_tokens(options)) {
    if (token.empty() || merger.find_token(token) >= 0) {
      throw Error(
          fmt::format("training a tokenizer: the special token '{}' is empty or occurs twice", token));
    }
    AddedToken added;
    added.id = merger.add_token(token);
    added.content = token;
    added.special = true;
    spec.added_tokens.push_back(added);
  }
  if (wordpiece && merger.find_token("[UNK]") < 0) {
    throw Error("training a tokenizer: a WordPiece vocabulary needs the special token '[UNK]'");
  }
  if (wordpiece) {
    add_wordpiece_words(merger, counts, options.limit_alphabet);
  } else {
    add_byte_level_words(merger, counts);
  }
  if (const auto least = static_cast<int64_t>(merger.num_tokens()); options.vocab_size < least) {
    throw Error(fmt::format(
        "training a tokenizer: vocab_size {} is too small; valid: at least {}, the special tokens and "
        "single characters of this text",
        options.vocab_size, least));
  }
  merger.run(options.vocab_size, options.min_frequency);
  for (size_t id = 0; id < merger.num_tokens(); ++id) {
    spec.vocab.emplace_back(merger.token(static_cast<int32_t>(id)), static_cast<int64_t>(id));
  }
  if (wordpiece) {
    describe_wordpiece(spec, options, merger);
  } else {
    describe_byte_level(spec, merger);
  }
  return make_tokenizer(std::move(spec));
}

}  // namespace tessera
