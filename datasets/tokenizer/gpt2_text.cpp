#include "datasets/tokenizer/gpt2_text.h"

namespace tessera {
namespace {

bool is_printable(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct ByteAlphabet {
  std::array<char32_t, 256> character{};
  std::array<int, 0x144> byte{};
  ByteAlphabet() {
    byte.fill(-1);
    char32_t next = 0x100;  // the others take the characters from here on, in order
    for (int b = 0; b < 256; ++b) {
      character[b] = is_printable(b) ? static_cast<char32_t>(b) : next++;
      byte[character[b]] = b;
    }
  }
};

const ByteAlphabet& alphabet() {
  static const ByteAlphabet instance;
  return instance;
}

}  // namespace

std::string to_byte_level(std::string_view bytes) {
  std::string result;
  for (const char b : bytes) unicode::append(result, alphabet().character[static_cast<unsigned char>(b)]);
  return result;
}

bool from_byte_level(std::string_view text, std::string& bytes) {
  bytes.clear();
  for (const char* p = text.data(); p < text.data() + text.size();) {
    const char32_t c = unicode::next(p);
    if (c >= alphabet().byte.size() || alphabet().byte[c] < 0) return false;
    bytes.push_back(static_cast<char>(alphabet().byte[c]));
  }
  return true;
}

Gpt2Text::Gpt2Text()
    : kinds_([](char32_t c) {
        if (unicode::is_whitespace(c)) return Kind::space;
        if (unicode::is_letter(c)) return Kind::letter;
        return unicode::is_number(c) ? Kind::number : Kind::other;
      }) {
  for (char32_t c = 0; c < 128; ++c) ascii_[c] = kinds_[c];
}

const char* Gpt2Text::run(const char* p, const char* end, Kind wanted) const {
  const char* after = p;
  while (p < end && kind(p, after) == wanted) p = after;
  return p;
}

size_t Gpt2Text::next_word(std::string_view text) const {
  const char* const begin = text.data();
  const char* const end = begin + text.size();
  if (*begin == '\'' && text.size() > 1) {
    const char c = begin[1];
    if (c == 's' || c == 't' || c == 'm' || c == 'd') return 2;
    const std::string_view two = text.substr(1, 2);
    if (two == "re" || two == "ve" || two == "ll") return 3;
  }
  const char* after;
  Kind first = kind(begin, after);
  if (*begin == ' ' && after < end) {
    const Kind second = kind(after, after);
    if (second != Kind::space) return run(after, end, second) - begin;
    after = begin + 1;
  }
  if (first != Kind::space) return run(after, end, first) - begin;
  // White space but for its last character, which goes with the word behind it, unless there is only one or
  // no word.
  const char* last = begin;
  for (const char* p = after; p < end; p = after) {
    if (kind(p, after) != Kind::space) return last == begin ? p - begin : last - begin;
    last = p;
  }
  return text.size();
}

}  // namespace tessera
