#pragma once
#include <array>
#include <string>
#include <string_view>

#include "datasets/tokenizer/unicode.h"

namespace tessera {

/// GPT-2's split of text into words, by hand:
/// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
class Gpt2Text {
 public:
  Gpt2Text();
  /// Length in bytes of the word at the start of `text`: valid UTF-8, not empty.
  size_t next_word(std::string_view text) const;

 private:
  enum class Kind : uint8_t { letter, number, space, other };
  Kind kind(const char* p, const char*& after) const {
    const auto byte = static_cast<unsigned char>(*p);
    if (byte < 0x80) {
      after = p + 1;
      return ascii_[byte];
    }
    after = p;
    return kinds_[unicode::next(after)];
  }
  const char* run(const char* p, const char* end, Kind kind) const;

  unicode::Table<Kind> kinds_;
  std::array<Kind, 128> ascii_;
};

/// GPT-2's printable stand-ins for bytes, which its files use.
std::string to_byte_level(std::string_view bytes);
/// The bytes that `text` stands for; false where it has a character that stands for none.
bool from_byte_level(std::string_view text, std::string& bytes);

}  // namespace tessera
