#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

/// Characters as the `tokenizers` package sees them. Its parts use different versions of Unicode: the BERT
/// normaliser's categories are those of Unicode 8, its decompositions of Unicode 9, its lowercase of Unicode
/// 17, and the letters and numbers of GPT-2's pattern of Unicode 16. Here they are derived from ICU (15.0 or
/// later), cut by the age of a character, with the few characters whose properties changed since, and those
/// newer than 15.0, listed explicitly.
namespace tessera::unicode {

/// Decodes one code point of valid UTF-8 and moves `p` behind it.
inline char32_t next(const char*& p) {
  const auto byte = [&](int i) { return static_cast<unsigned char>(p[i]); };
  const unsigned char first = byte(0);
  char32_t c = first;
  int length = 1;
  if (first >= 0xF0) {
    c = (first & 7u) << 18 | (byte(1) & 63u) << 12 | (byte(2) & 63u) << 6 | (byte(3) & 63u);
    length = 4;
  } else if (first >= 0xE0) {
    c = (first & 15u) << 12 | (byte(1) & 63u) << 6 | (byte(2) & 63u);
    length = 3;
  } else if (first >= 0x80) {
    c = (first & 31u) << 6 | (byte(1) & 63u);
    length = 2;
  }
  p += length;
  return c;
}
void append(std::string& text, char32_t c);
inline bool starts_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }
int64_t count(std::string_view valid_text);  ///< code points

bool is_valid(std::string_view text);
/// The text with U+FFFD in place of every maximal ill-formed subsequence (Unicode 15, table 3-8).
std::string repaired(std::string_view text);

bool is_whitespace(char32_t c);   ///< property White_Space
bool is_letter(char32_t c);       ///< category L*, as GPT-2's pattern sees it
bool is_number(char32_t c);       ///< category N*, as GPT-2's pattern sees it
bool is_word(char32_t c);         ///< \w: what counts as a word beside a `single_word` added token
bool is_punctuation(char32_t c);  ///< as BERT's pre-tokenizer: ASCII punctuation and P*
bool is_control(char32_t c);      ///< what BERT's clean-up removes: Cc (but tab, newlines), Cf, Co, 0, U+FFFD
bool is_nonspacing_mark(char32_t c);  ///< Mn: what BERT's accent stripping removes
bool is_ideograph(char32_t c);        ///< what BERT puts spaces around
int combining_class(char32_t c);

/// Up to four code points.
struct Sequence {
  std::array<char32_t, 4> points;
  int size = 0;
  void add(char32_t c) {
    if (size < 4) points[size++] = c;
  }
  const char32_t* begin() const { return points.data(); }
  const char32_t* end() const { return points.data() + size; }
};
Sequence decompose(char32_t c);  ///< full canonical decomposition, not reordered
Sequence lower(char32_t c);

/// A property of every code point, computed when a page of 256 is first asked for. Thread-safe.
template <class Value>
class Table {
 public:
  explicit Table(std::function<Value(char32_t)> property) : property_(std::move(property)) {}
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;
  ~Table() {
    for (auto& page : pages_) delete page.load(std::memory_order_relaxed);
  }
  Value operator[](char32_t c) const {
    const Page* page = pages_[c >> 8].load(std::memory_order_acquire);
    if (!page) page = make(c >> 8);
    return (*page)[c & 255];
  }

 private:
  using Page = std::array<Value, 256>;
  const Page* make(uint32_t index) const {
    auto page = std::make_unique<Page>();
    for (uint32_t i = 0; i < 256; ++i) (*page)[i] = property_(index << 8 | i);
    const Page* expected = nullptr;
    if (pages_[index].compare_exchange_strong(expected, page.get(), std::memory_order_acq_rel))
      return page.release();
    return expected;  // another thread was first
  }

  std::function<Value(char32_t)> property_;
  mutable std::array<std::atomic<const Page*>, 0x1100> pages_{};
};

}  // namespace tessera::unicode
