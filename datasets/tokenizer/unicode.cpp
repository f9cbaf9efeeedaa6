#include "datasets/tokenizer/unicode.h"

#include <unicode/uchar.h>
#include <unicode/unorm2.h>
#include <unicode/utf16.h>

#include <algorithm>
#include <cstring>
#include <iterator>

namespace tessera::unicode {
namespace {

struct Range {
  char32_t first, last;
};
// Letters and numbers of Unicode 15.1 and 16.0.
constexpr Range new_letters[] = {
    {0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3}, {0x10D4A, 0x10D65},
    {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E},
    {0x11390, 0x113B5}, {0x113B7, 0x113B7}, {0x113D1, 0x113D1}, {0x113D3, 0x113D3}, {0x11BC0, 0x11BE0},
    {0x13460, 0x143FA}, {0x16100, 0x1611D}, {0x16D40, 0x16D6C}, {0x18CFF, 0x18CFF}, {0x1E5D0, 0x1E5ED},
    {0x1E5F0, 0x1E5F0}, {0x2EBF0, 0x2EE5D}};
constexpr Range new_numbers[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9},
                                 {0x16130, 0x16139}, {0x16D70, 0x16D79}, {0x1CCF0, 0x1CCF9},
                                 {0x1E5F1, 0x1E5FA}};
// All \w of Unicode 15.1 and 16.0.
constexpr Range new_words[] = {
    {0x897, 0x897},     {0x1C89, 0x1C8A},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},   {0x105C0, 0x105F3},
    {0x10D40, 0x10D65}, {0x10D69, 0x10D6D}, {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x10EFC, 0x10EFC},
    {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113C0},
    {0x113C2, 0x113C2}, {0x113C5, 0x113C5}, {0x113C7, 0x113CA}, {0x113CC, 0x113D3}, {0x113E1, 0x113E2},
    {0x116D0, 0x116E3}, {0x11BC0, 0x11BE0}, {0x11BF0, 0x11BF9}, {0x11F5A, 0x11F5A}, {0x13460, 0x143FA},
    {0x16100, 0x16139}, {0x16D40, 0x16D6C}, {0x16D70, 0x16D79}, {0x18CFF, 0x18CFF}, {0x1CCF0, 0x1CCF9},
    {0x1E5D0, 0x1E5FA}, {0x2EBF0, 0x2EE5D}};
// Lowercase of Unicode 16 and 17: a range of capitals and the lowercase of the first.
struct Lower {
  char32_t first, last, lower;
};
constexpr Lower new_lower[] = {{0x1C89, 0x1C89, 0x1C8A},    {0xA7CB, 0xA7CB, 0x264},
                               {0xA7CC, 0xA7CC, 0xA7CD},    {0xA7CE, 0xA7CE, 0xA7CF},
                               {0xA7D2, 0xA7D2, 0xA7D3},    {0xA7D4, 0xA7D4, 0xA7D5},
                               {0xA7DA, 0xA7DA, 0xA7DB},    {0xA7DC, 0xA7DC, 0x19B},
                               {0x10D50, 0x10D65, 0x10D70}, {0x16EA0, 0x16EB8, 0x16EBB}};

template <size_t n>
bool contains(const Range (&ranges)[n], char32_t c) {
  const auto range =
      std::upper_bound(ranges, ranges + n, c, [](char32_t x, const Range& r) { return x < r.first; });
  return range != ranges && c <= std::prev(range)->last;
}

/// Assigned in Unicode `major`.0 or before.
bool existed_in(char32_t c, int major) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(c), age);
  return age[0] != 0 && (age[0] < major || (age[0] == major && age[1] == 0));
}

uint32_t category_mask(char32_t c) { return U_MASK(u_charType(static_cast<UChar32>(c))); }

/// The length of the well-formed sequence at p, or minus the length of the maximal ill-formed one.
int measure(const unsigned char* p, const unsigned char* end) {
  const unsigned char first = *p;
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return -1;
  const int length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  unsigned char low = 0x80, high = 0xBF;  // bounds of the second byte: no surrogates, no overlong forms
  if (first == 0xE0) low = 0xA0;
  if (first == 0xED) high = 0x9F;
  if (first == 0xF0) low = 0x90;
  if (first == 0xF4) high = 0x8F;
  for (int i = 1; i < length; ++i) {
    if (p + i >= end || p[i] < low || p[i] > high) return -i;
    low = 0x80;
    high = 0xBF;
  }
  return length;
}

}  // namespace

void append(std::string& text, char32_t c) {
  const auto put = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xC0 | c >> 6);
  } else {
    if (c < 0x10000) {
      put(0xE0 | c >> 12);
    } else {
      put(0xF0 | c >> 18);
      put(0x80 | (c >> 12 & 63));
    }
    put(0x80 | (c >> 6 & 63));
  }
  put(0x80 | (c & 63));
}

int64_t count(std::string_view valid_text) {
  return std::count_if(valid_text.begin(), valid_text.end(), starts_character);
}

bool is_valid(std::string_view text) {
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const auto* end = p + text.size();
  while (p < end) {
    uint64_t eight;
    if (end - p >= 8 && (std::memcpy(&eight, p, 8), (eight & 0x8080808080808080ull) == 0)) {
      p += 8;
      continue;
    }
    const int length = measure(p, end);
    if (length < 0) return false;
    p += length;
  }
  return true;
}

std::string repaired(std::string_view text) {
  std::string result;
  result.reserve(text.size() + 16);
  const auto* p = reinterpret_cast<const unsigned char*>(text.data());
  const auto* end = p + text.size();
  while (p < end) {
    const int length = measure(p, end);
    if (length < 0) {
      result += "\xEF\xBF\xBD";
    } else {
      result.append(reinterpret_cast<const char*>(p), length);
    }
    p += std::abs(length);
  }
  return result;
}

bool is_whitespace(char32_t c) { return u_isUWhiteSpace(static_cast<UChar32>(c)); }

bool is_letter(char32_t c) {
  return (category_mask(c) & U_GC_L_MASK && existed_in(c, 15)) || contains(new_letters, c);
}

bool is_number(char32_t c) {
  return (category_mask(c) & U_GC_N_MASK && existed_in(c, 15)) || contains(new_numbers, c);
}

bool is_word(char32_t c) {
  return category_mask(c) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK) ||
         u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_ALPHABETIC) ||
         u_hasBinaryProperty(static_cast<UChar32>(c), UCHAR_JOIN_CONTROL) || contains(new_words, c);
}

bool is_punctuation(char32_t c) {
  if (c < 0x80)
    return (c > 0x20 && c < 0x30) || (c > 0x39 && c < 0x41) || (c > 0x5A && c < 0x61) ||
           (c > 0x7A && c < 0x7F);
  if (c == 0x166D || c == 0x111C9) return true;  // later a symbol, a mark
  return category_mask(c) & U_GC_P_MASK && existed_in(c, 8);
}

bool is_control(char32_t c) {
  if (c == '\t' || c == '\n' || c == '\r') return false;
  if (c == 0 || c == 0xFFFD) return true;
  return category_mask(c) & (U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK) && existed_in(c, 8);
}

bool is_nonspacing_mark(char32_t c) {
  if (c == 0x1734) return true;                                                 // later a spacing mark
  if (c == 0x1885 || c == 0x1886 || c == 0xA9BD || c == 0x111C9) return false;  // marks only later
  return category_mask(c) & U_GC_MN_MASK && existed_in(c, 8);
}

bool is_ideograph(char32_t c) {
  static constexpr Range ideographs[] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},
                                         {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F},
                                         {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
  return c >= 0x3400 && contains(ideographs, c);
}

int combining_class(char32_t c) {
  const int combining = u_getCombiningClass(static_cast<UChar32>(c));
  return combining != 0 && existed_in(c, 9) ? combining : 0;
}

Sequence decompose(char32_t c) {
  Sequence result;
  UErrorCode status = U_ZERO_ERROR;
  UChar units[16];
  const UNormalizer2* normalizer = unorm2_getNFDInstance(&status);
  const int length = existed_in(c, 9)
                         ? unorm2_getDecomposition(normalizer, static_cast<UChar32>(c), units, 16, &status)
                         : -1;
  if (length < 0) {
    result.add(c);
    return result;
  }
  for (int i = 0; i < length;) {
    UChar32 point;
    U16_NEXT(units, i, length, point);
    result.add(static_cast<char32_t>(point));
  }
  return result;
}

Sequence lower(char32_t c) {
  Sequence result;
  if (c == 0x130) {  // the only character whose lowercase is two
    result.add('i');
    result.add(0x307);
    return result;
  }
  for (const Lower& range : new_lower) {
    if (c >= range.first && c <= range.last) {
      result.add(range.lower + (c - range.first));
      return result;
    }
  }
  result.add(static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))));
  return result;
}

}  // namespace tessera::unicode
