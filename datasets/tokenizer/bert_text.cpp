#include "datasets/tokenizer/bert_text.h"

#include <algorithm>

namespace tessera {

using unicode::Sequence;

BertText::BertText(const BertOptions& options)
    : options_(options), fates_([this](char32_t c) { return fate(c); }) {
  ascii_kind_.fill(Kind::several);
  for (char32_t c = 0; c < 128; ++c) {
    const Fate found = fate(c);
    ascii_kind_[c] = found.kind;
    ascii_[c] = static_cast<char>(found.point);
  }
}

bool BertText::cleaned_away(char32_t c) const { return options_.clean_text && unicode::is_control(c); }

Sequence BertText::normalize_one(char32_t c) const {
  Sequence result;
  if (cleaned_away(c)) return result;
  if (options_.clean_text && unicode::is_whitespace(c)) c = ' ';
  Sequence parts;
  if (options_.strip_accents) {
    for (const char32_t part : unicode::decompose(c)) {
      if (!unicode::is_nonspacing_mark(part)) parts.add(part);
    }
  } else {
    parts.add(c);
  }
  if (!options_.lowercase) return parts;
  for (const char32_t part : parts) {
    for (const char32_t lower : unicode::lower(part)) result.add(lower);
  }
  return result;
}

BertText::Fate BertText::fate(char32_t c) const {
  if (cleaned_away(c)) return {Kind::dropped, 0};
  if (options_.strip_accents) {
    for (const char32_t part : unicode::decompose(c)) {
      if (unicode::combining_class(part) != 0 && !unicode::is_nonspacing_mark(part))
        return {Kind::reordered, 0};
    }
  }
  const Sequence parts = normalize_one(c);
  if (parts.size == 0) return {Kind::dropped, 0};
  const bool apart = std::any_of(parts.begin(), parts.end(), [](char32_t x) {
    return unicode::is_whitespace(x) || unicode::is_punctuation(x);
  });
  const bool ideograph = options_.handle_chinese_chars && unicode::is_ideograph(c);
  if (parts.size > 1) return {apart || ideograph ? Kind::reordered : Kind::several, 0};
  if (unicode::is_whitespace(parts.points[0])) return {Kind::space, ' '};
  return {apart || ideograph ? Kind::alone : Kind::word, parts.points[0]};
}

std::vector<BertCharacter> BertText::normalize(std::string_view text, int32_t first) const {
  std::vector<BertCharacter> out;
  out.reserve(text.size());
  int32_t number = first;
  const char* end = text.data() + text.size();
  for (const char* p = text.data(); p < end; ++number) {
    const char32_t c = unicode::next(p);
    const auto add = [&](char32_t point) { out.push_back({point, number, number + 1}); };
    const Fate fate = find_fate(c);
    if (fate.kind == Kind::reordered) {
      out.clear();
      normalize_reordering(text, first, out);
      return out;
    }
    const bool ideograph = options_.handle_chinese_chars && unicode::is_ideograph(c);
    if (ideograph) add(' ');
    if (fate.kind == Kind::several) {
      for (const char32_t part : normalize_one(c)) add(part);
    } else if (fate.kind != Kind::dropped) {
      add(fate.kind == Kind::space ? normalize_one(c).points[0] : fate.point);
    }
    if (ideograph) add(' ');
  }
  return out;
}

/// Step by step as the wheel does it, for texts where accents that stay change places. A part of a decomposed
/// character takes the origin of whatever stands before it, as in the wheel.
void BertText::normalize_reordering(std::string_view text, int32_t first,
                                    std::vector<BertCharacter>& out) const {
  std::vector<BertCharacter> clean;
  int32_t number = first;
  for (const char* p = text.data(); p < text.data() + text.size(); ++number) {
    char32_t c = unicode::next(p);
    if (cleaned_away(c)) continue;
    if (options_.clean_text && unicode::is_whitespace(c)) c = ' ';
    const bool ideograph = options_.handle_chinese_chars && unicode::is_ideograph(c);
    if (ideograph) clean.push_back({' ', number, number + 1});
    clean.push_back({c, number, number + 1});
    if (ideograph) clean.push_back({' ', number, number + 1});
  }
  struct Part {
    char32_t point;
    int combining;
    bool replaces;  // the next character, else it is an addition
  };
  std::vector<Part> parts;
  for (const BertCharacter& character : clean) {
    bool replaces = true;
    for (const char32_t point : unicode::decompose(character.point)) {
      parts.push_back({point, unicode::combining_class(point), replaces});
      replaces = false;
    }
  }
  for (size_t i = 0; i < parts.size();) {
    size_t end = i;
    while (end < parts.size() && parts[end].combining != 0) ++end;
    std::stable_sort(parts.begin() + i, parts.begin() + end,
                     [](const Part& a, const Part& b) { return a.combining < b.combining; });
    i = std::max(end, i + 1);
  }
  size_t next = 0;
  for (const Part& part : parts) {
    next += part.replaces;
    if (unicode::is_nonspacing_mark(part.point)) continue;
    const BertCharacter& origin = clean[next - 1];
    if (!options_.lowercase) {
      out.push_back({part.point, origin.begin, origin.end});
      continue;
    }
    for (const char32_t lower : unicode::lower(part.point)) out.push_back({lower, origin.begin, origin.end});
  }
}

std::string BertText::normalize_text(std::string_view text) const {
  std::string result;
  for (const BertCharacter& character : normalize(text)) unicode::append(result, character.point);
  return result;
}

std::vector<std::pair<size_t, size_t>> BertText::words(const BertCharacter* characters, size_t size) {
  std::vector<std::pair<size_t, size_t>> result;
  size_t begin = 0;
  for (size_t i = 0; i <= size; ++i) {
    const bool space = i == size || unicode::is_whitespace(characters[i].point);
    if (!space && !unicode::is_punctuation(characters[i].point)) continue;
    if (begin < i) result.emplace_back(begin, i);
    if (!space) result.emplace_back(i, i + 1);
    begin = i + 1;
  }
  return result;
}

}  // namespace tessera
