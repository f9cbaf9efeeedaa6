#pragma once
#include <atomic>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/tokenizer.h"
#include "datasets/tokenizer/added_tokens.h"
#include "datasets/tokenizer/spec.h"
#include "datasets/tokenizer/vocabulary.h"

namespace tessera {

/// What the kinds of tokenizers share: vocabulary, added tokens, special tokens, the sections of the file. A
/// kind encodes the pieces of text between added tokens, and decodes.
class TokenizerBase : public Tokenizer {
 public:
  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<int32_t>& ids) const final;
  Encoding encode_with_offsets(std::string_view text) const final;
  std::string decode(const std::vector<int32_t>& ids, bool skip_special) const final;

  int32_t vocab_size() const final { return end_id_; }
  int32_t id_of(std::string_view token) const final;
  std::string token_of(int32_t id) const final;
  const SpecialTokens& special() const final { return special_; }
  std::string json() const final;

 protected:
  /// Where the characters of a text are: for offsets.
  struct Position {
    const std::vector<int32_t>& character;  ///< number of the code point that each byte belongs to
    size_t begin;                           ///< of the piece, in bytes
  };

  explicit TokenizerBase(TokenizerSpec spec);
  /// Resolves the added tokens against the vocabulary; to be called once the kind can normalise.
  void finish();

  virtual std::string normalize(std::string_view text) const = 0;  ///< for added tokens with `normalized`
  /// A piece of valid UTF-8 without added tokens, but for normalised ones.
  virtual void encode_piece(std::string_view piece, std::vector<int32_t>& ids) const = 0;
  virtual void encode_piece(std::string_view piece, const Position& position, Encoding& encoding) const = 0;
  virtual std::string join(const std::vector<std::string_view>& tokens) const = 0;
  virtual std::vector<std::pair<std::string, std::string>> merges() const { return {}; }

  const AddedToken* added(int32_t id) const;
  /// An added token's id and offsets, trimmed as the file's post-processor says.
  void emit(const Segment& segment, std::string_view text, int32_t begin, int32_t end,
            Encoding& encoding) const;
  /// A token's id and offsets; `leading` and `trailing` white space characters of the token are left out if
  /// so set.
  void emit(int32_t id, std::pair<int64_t, int64_t> offsets, int64_t leading, int64_t trailing,
            Encoding& encoding) const;
  std::string where(const char* section) const { return spec_.origin + ": " + section; }

  TokenizerSpec spec_;  // without vocab and merges
  Vocabulary vocabulary_;
  AddedTokenFinder raw_finder_, normal_finder_;
  bool trim_offsets_ = false, trim_keeps_prefix_ = false;  // set by the kind
  const uint64_t number_ = next_number();                  // of this tokenizer, for caches

 private:
  static uint64_t next_number();
  void resolve_added_tokens();
  int32_t first_of(std::initializer_list<const char*> names) const;

  StringMap added_by_content_;
  std::vector<int32_t> added_by_id_;  // index into spec_.added_tokens, or -1
  StringMap special_texts_;
  SpecialTokens special_;
  int32_t end_id_ = 0;
};

/// The text with all occurrences of `from` replaced.
std::string replace_all(std::string text, std::string_view from, std::string_view to);

TokenizerPtr make_wordpiece(TokenizerSpec spec);
TokenizerPtr make_byte_level(TokenizerSpec spec);

}  // namespace tessera
