#pragma once
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/tokenizer/unicode.h"

namespace tessera {

struct BertOptions {
  bool clean_text = true;            ///< drop control characters, make white space ' '
  bool handle_chinese_chars = true;  ///< spaces around ideographs
  bool strip_accents = true;
  bool lowercase = true;
};

/// A normalised character and the original ones that it came from, [begin, end) by number.
struct BertCharacter {
  char32_t point;
  int32_t begin, end;
};

/// The BERT normaliser and pre-tokenizer: text to words, either streamed (fast) or as characters with their
/// origin.
class BertText {
 public:
  explicit BertText(const BertOptions& options);

  /// Calls word(std::string_view) for every normalised word of valid UTF-8; the view ends with the call.
  template <class Word>
  void each_word(std::string_view text, Word&& word) const;

  /// Valid UTF-8, normalised: with the origin of each character, numbered from `first`.
  std::vector<BertCharacter> normalize(std::string_view text, int32_t first = 0) const;
  std::string normalize_text(std::string_view text) const;
  /// The words among normalised characters as [begin, end) index ranges.
  static std::vector<std::pair<size_t, size_t>> words(const BertCharacter* characters, size_t size);

 private:
  /// What becomes of a character: it joins the word as `point` (or as several), ends it, or stands alone.
  enum class Kind : uint8_t { word, dropped, space, alone, several, reordered };
  struct Fate {
    Kind kind;
    char32_t point;
  };

  Fate fate(char32_t c) const;
  Fate find_fate(char32_t c) const { return fates_[c]; }
  unicode::Sequence normalize_one(char32_t c) const;  ///< alone: without spaces around and reordering
  bool cleaned_away(char32_t c) const;
  void normalize_reordering(std::string_view text, int32_t first, std::vector<BertCharacter>& out) const;
  /// Normalises and splits the run of text at p up to the next ASCII white space; returns its end.
  template <class Word>
  const char* exact_run(const char* p, const char* end, Word&& word) const;

  BertOptions options_;
  unicode::Table<Fate> fates_;
  std::array<Kind, 256> ascii_kind_;  ///< bytes of longer sequences are `several`
  std::array<char, 128> ascii_;
};

template <class Word>
void BertText::each_word(std::string_view text, Word&& word) const {
  thread_local std::string buffer;
  const auto finish = [&] {
    if (!buffer.empty()) word(std::string_view(buffer));
    buffer.clear();
  };
  buffer.clear();
  const char* p = text.data();
  const char* const end = p + text.size();
  const char* word_begin = p;
  while (p < end) {
    const char* run = p;
    while (run < end && ascii_kind_[static_cast<unsigned char>(*run)] == Kind::word) ++run;
    if (run > p) {
      const size_t old = buffer.size();
      buffer.resize(old + (run - p));
      for (char* to = buffer.data() + old; p < run; ++p, ++to) *to = ascii_[static_cast<unsigned char>(*p)];
      if (p == end) break;
    }
    const char* after = p;
    const char32_t c = unicode::next(after);
    const Fate fate = c < 0x80 ? Fate{ascii_kind_[c], c} : find_fate(c);
    switch (fate.kind) {
      case Kind::word:
        unicode::append(buffer, fate.point);
        break;
      case Kind::dropped:
        break;
      case Kind::several:
        for (const char32_t part : normalize_one(c)) unicode::append(buffer, part);
        break;
      case Kind::reordered:  // rare: start this word again, exactly
        buffer.clear();
        after = exact_run(word_begin, end, word);
        break;
      case Kind::alone:
        finish();
        unicode::append(buffer, fate.point);
        [[fallthrough]];
      case Kind::space:
        finish();
    }
    if (fate.kind >= Kind::space && fate.kind != Kind::several) word_begin = after;
    p = after;
  }
  finish();
}

template <class Word>
const char* BertText::exact_run(const char* p, const char* end, Word&& word) const {
  const char* run = p;
  while (run < end && *run != ' ' && *run != '\n') ++run;
  const auto characters = normalize({p, static_cast<size_t>(run - p)});
  std::string text;
  for (const auto& [begin, stop] : words(characters.data(), characters.size())) {
    text.clear();
    for (size_t i = begin; i < stop; ++i) unicode::append(text, characters[i].point);
    word(std::string_view(text));
  }
  return run;
}

}  // namespace tessera
