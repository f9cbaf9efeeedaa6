#include <fmt/format.h>

#include <algorithm>

#include "datasets/strict_json.h"
#include "datasets/tokenizer/base.h"
#include "datasets/tokenizer/bert_text.h"
#include "datasets/tokenizer/word_cache.h"
#include "recipes/error.h"

namespace tessera {
namespace {

using Json = TokenizerSpec::Json;

BertOptions read_normalizer(TokenizerSpec& spec) {
  if (type_of(spec, "normalizer", {"BertNormalizer"}).empty()) return {false, false, false, false};
  const Json section = spec.sections["normalizer"];
  const std::string where = spec.origin + ": normalizer";
  BertOptions options;
  options.clean_text = bool_of(section, "clean_text", true, where);
  options.handle_chinese_chars = bool_of(section, "handle_chinese_chars", true, where);
  options.lowercase = bool_of(section, "lowercase", true, where);
  options.strip_accents = bool_of(section, "strip_accents", options.lowercase, where);
  spec.sections["normalizer"] = {{"type", "BertNormalizer"},
                                 {"clean_text", options.clean_text},
                                 {"handle_chinese_chars", options.handle_chinese_chars},
                                 {"strip_accents", section.value("strip_accents", Json())},
                                 {"lowercase", options.lowercase}};
  return options;
}

class WordPiece final : public TokenizerBase {
 public:
  explicit WordPiece(TokenizerSpec spec);

  bool continues_word(int32_t id) const override {
    return !added(id) && vocabulary_.token(id).starts_with(prefix_);
  }

 protected:
  std::string normalize(std::string_view text) const override { return text_.normalize_text(text); }
  void encode_piece(std::string_view piece, std::vector<int32_t>& ids) const override;
  void encode_piece(std::string_view piece, const Position& position, Encoding& encoding) const override;
  std::string join(const std::vector<std::string_view>& tokens) const override;

 private:
  /// The pieces of a word; `ends` (bytes in the word) is filled where given.
  void split_word(std::string_view word, std::vector<int32_t>& ids, std::vector<size_t>* ends) const;
  int32_t longest_piece(std::string_view word, size_t begin, size_t& end) const;
  void encode_words(const BertCharacter* characters, size_t size, Encoding& encoding) const;

  BertText text_;
  std::string prefix_;
  int32_t unknown_ = -1;
  int64_t max_characters_ = 100;
  size_t max_piece_ = 0;  // bytes of the longest token
  bool clean_up_ = true, has_decoder_ = true;
  std::string decoder_prefix_;
};

WordPiece::WordPiece(TokenizerSpec spec) : TokenizerBase(std::move(spec)), text_(read_normalizer(spec_)) {
  const std::string at = where("model");
  prefix_ = text_of(spec_.model, "continuing_subword_prefix", "##", at);
  const std::string unknown = text_of(spec_.model, "unk_token", "[UNK]", at);
  unknown_ = vocabulary_.find(unknown);
  if (unknown_ < 0) throw Error(fmt::format("{}.unk_token: '{}' is not in the vocabulary", at, unknown));
  if (const auto limit = spec_.model.find("max_input_chars_per_word"); limit != spec_.model.end()) {
    if (!limit->is_number_integer() || limit->get<int64_t>() < 0) {
      throw Error(
          fmt::format("{}.max_input_chars_per_word: must be a whole number, not {}", at, shown(*limit)));
    }
    max_characters_ = limit->get<int64_t>();
  }
  spec_.model = {{"type", "WordPiece"},
                 {"unk_token", unknown},
                 {"continuing_subword_prefix", prefix_},
                 {"max_input_chars_per_word", max_characters_}};
  if (type_of(spec_, "pre_tokenizer", {"BertPreTokenizer"}).empty()) {
    throw Error(where("pre_tokenizer") + ": missing; valid: BertPreTokenizer");
  }
  type_of(spec_, "post_processor", {"TemplateProcessing", "BertProcessing"});
  has_decoder_ = !type_of(spec_, "decoder", {"WordPiece"}).empty();
  if (has_decoder_) {
    clean_up_ = bool_of(spec_.sections["decoder"], "cleanup", true, where("decoder"));
    decoder_prefix_ = text_of(spec_.sections["decoder"], "prefix", "##", where("decoder"));
  }
  for (int32_t id = 0; id < vocabulary_.end_id(); ++id)
    max_piece_ = std::max(max_piece_, vocabulary_.token(id).size());
  finish();
}

/// The longest token that the word continues with from `begin`, which must be less than its size; -1 where
/// none does.
int32_t WordPiece::longest_piece(std::string_view word, size_t begin, size_t& end) const {
  thread_local std::string prefixed;
  const size_t skip = begin == 0 ? 0 : prefix_.size();
  if (max_piece_ <= skip) return -1;
  end = std::min(word.size(), begin + max_piece_ - skip);
  while (end < word.size() && !unicode::starts_character(word[end])) --end;
  std::string_view candidate = word;
  if (begin > 0) {
    prefixed.assign(prefix_).append(word.substr(begin, end - begin));
    candidate = prefixed;
  }
  while (end > begin) {
    const int32_t id = vocabulary_.find(candidate.substr(0, skip + end - begin));
    if (id >= 0) return id;
    do --end;
    while (end > begin && !unicode::starts_character(word[end]));
  }
  return -1;
}

void WordPiece::split_word(std::string_view word, std::vector<int32_t>& ids,
                           std::vector<size_t>* ends) const {
  const size_t first_id = ids.size();
  bool known =
      static_cast<int64_t>(word.size()) <= max_characters_ || unicode::count(word) <= max_characters_;
  for (size_t begin = 0, end = 0; known && begin < word.size(); begin = end) {
    const int32_t id = longest_piece(word, begin, end);
    known = id >= 0;
    ids.push_back(id);
    if (ends) ends->push_back(end);
  }
  if (known) return;
  ids.resize(first_id);
  ids.push_back(unknown_);
  if (ends) ends->assign(1, word.size());
}

void WordPiece::encode_piece(std::string_view piece, std::vector<int32_t>& ids) const {
  if (!normal_finder_.empty()) {  // rare, so no second fast path
    Encoding encoding;
    const std::vector<int32_t> nowhere(piece.size(), 0);
    encode_piece(piece, Position{nowhere, 0}, encoding);
    ids.insert(ids.end(), encoding.ids.begin(), encoding.ids.end());
    return;
  }
  WordCache& cache = WordCache::of_thread(number_);
  text_.each_word(piece, [&](std::string_view word) {
    if (word.size() > WordCache::max_length) return split_word(word, ids, nullptr);
    const WordCache::Key key = WordCache::key(word, word.size());
    WordCache::Entry& entry = cache.entry(key);
    if (entry.holds(key)) {
      ids.insert(ids.end(), entry.ids.begin(), entry.ids.begin() + entry.count);
      return;
    }
    const size_t old = ids.size();
    split_word(word, ids, nullptr);
    if (ids.size() - old <= WordCache::max_ids) entry.fill(key, ids.data() + old, ids.size() - old);
  });
}

void WordPiece::encode_piece(std::string_view piece, const Position& position, Encoding& encoding) const {
  const std::vector<BertCharacter> characters = text_.normalize(piece, position.character[position.begin]);
  if (normal_finder_.empty()) return encode_words(characters.data(), characters.size(), encoding);
  std::string text;
  std::vector<size_t> character_of_byte;
  for (size_t i = 0; i < characters.size(); ++i) {
    unicode::append(text, characters[i].point);
    character_of_byte.resize(text.size(), i);
  }
  character_of_byte.push_back(characters.size());
  std::vector<Segment> segments;
  normal_finder_.split(text, segments);
  for (const Segment& segment : segments) {
    const BertCharacter* begin = &characters[character_of_byte[segment.begin]];
    const size_t size = character_of_byte[segment.end] - character_of_byte[segment.begin];
    if (!segment.token) {
      encode_words(begin, size, encoding);
    } else {
      emit(segment, std::string_view(text).substr(segment.begin, segment.end - segment.begin), begin->begin,
           begin[size - 1].end, encoding);
    }
  }
}

void WordPiece::encode_words(const BertCharacter* characters, size_t size, Encoding& encoding) const {
  std::string word;
  std::vector<size_t> character_of_byte, ends;
  std::vector<int32_t> ids;
  for (const auto& [begin, end] : BertText::words(characters, size)) {
    word.clear();
    character_of_byte.clear();
    for (size_t i = begin; i < end; ++i) {
      unicode::append(word, characters[i].point);
      character_of_byte.resize(word.size(), i);
    }
    ids.clear();
    ends.clear();
    split_word(word, ids, &ends);
    for (size_t i = 0, from = 0; i < ids.size(); from = ends[i++]) {
      emit(ids[i],
           {characters[character_of_byte[from]].begin, characters[character_of_byte[ends[i] - 1]].end}, 0, 0,
           encoding);
    }
  }
}

std::string WordPiece::join(const std::vector<std::string_view>& tokens) const {
  static constexpr std::pair<const char*, const char*> clean_ups[] = {
      {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
      {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  std::string result;
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::string_view rest = tokens[i];
    std::string token;
    if (has_decoder_ && i > 0 && rest.starts_with(decoder_prefix_)) {
      rest.remove_prefix(decoder_prefix_.size());
    } else if (i > 0) {
      token = ' ';
    }
    token += rest;
    if (has_decoder_ && clean_up_) {
      for (const auto& [from, to] : clean_ups) token = replace_all(std::move(token), from, to);
    }
    result += token;
  }
  return result;
}

}  // namespace

TokenizerPtr make_wordpiece(TokenizerSpec spec) { return std::make_shared<WordPiece>(std::move(spec)); }

}  // namespace tessera
