#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/tokenizer/vocabulary.h"

namespace tessera {

/// A token found in the text before the model sees it, as in tokenizer.json's `added_tokens`.
struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  ///< only where no word character touches it
  bool lstrip = false;       ///< takes the white space before it
  bool rstrip = false;       ///< takes the white space behind it
  bool normalized = false;   ///< looked for in the normalised text
  bool special = false;      ///< left out by decode(…, skip_special)
  std::string normal;        ///< what is looked for and decoded: content, normalised where `normalized`
};

/// A part of the text: an added token, or text between them (`token` null).
struct Segment {
  size_t begin, end;  ///< bytes
  const AddedToken* token;
};

/// Finds added tokens in valid UTF-8: the leftmost, then the longest.
class AddedTokenFinder {
 public:
  void add(const AddedToken* token);
  bool empty() const { return tokens_.empty(); }
  /// All of `text` as segments without empty ones; a token that strips may overlap the one before, as in the
  /// wheel.
  void split(std::string_view text, std::vector<Segment>& segments) const;

 private:
  const AddedToken* match(std::string_view text, size_t position) const;
  size_t next_candidate(std::string_view text, size_t position) const;

  StringMap map_;  // content -> index in tokens_
  std::vector<const AddedToken*> tokens_;
  std::array<std::vector<uint32_t>, 256> lengths_;  // of the tokens by first byte, longest first
  int only_first_byte_ = -1;                        // where all tokens share it
};

}  // namespace tessera
