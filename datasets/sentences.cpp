#include "datasets/sentences.h"

#include <algorithm>
#include <array>
#include <string>

namespace tessera {
namespace {

constexpr std::array<std::string_view, 24> abbreviations{
    "approx", "ca",  "cf", "co",  "dept", "dr", "e.g", "ed",   "fig",  "i.e", "inc", "incl",
    "jr",     "ltd", "mr", "mrs", "ms",   "no", "nr",  "prof", "resp", "st",  "viz", "vs"};

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_upper(char c) { return c >= 'A' && c <= 'Z'; }
bool is_letter(char c) { return is_upper(c) || (c >= 'a' && c <= 'z'); }

/// Whether the full stop at text[stop] belongs to "e.g.", "Dr.", or an initial such as "J.".
bool abbreviates(std::string_view text, size_t stop) {
  size_t begin = stop;
  while (begin > 0 && (is_letter(text[begin - 1]) || text[begin - 1] == '.')) --begin;
  std::string word(text.substr(begin, stop - begin));
  if (word.size() == 1 && is_upper(word[0])) return true;
  std::transform(word.begin(), word.end(), word.begin(),
                 [](char c) { return is_upper(c) ? char(c + 32) : c; });
  return std::binary_search(abbreviations.begin(), abbreviations.end(), word);
}

bool can_begin_sentence(std::string_view text, size_t at) {
  const char c = text[at];
  return is_upper(c) || (c >= '0' && c <= '9') ||
         std::string_view("\"'([{`").find(c) != std::string_view::npos ||
         static_cast<unsigned char>(c) >= 0x80;
}

/// Past closing quotes and brackets.
size_t skip_closing(std::string_view text, size_t at) {
  for (;;) {
    if (at < text.size() && std::string_view("\"')]}.!?").find(text[at]) != std::string_view::npos) {
      ++at;
    } else if (text.substr(at, 3) == "”" || text.substr(at, 3) == "’") {
      at += 3;
    } else if (text.substr(at, 2) == "»") {
      at += 2;
    } else {
      return at;
    }
  }
}

/// Where the next sentence starts if one ends with the character at `at`, else 0.
size_t end_after(std::string_view text, size_t at) {
  const std::string_view wide = text.substr(at, 3);
  if (wide == "。" || wide == "！" || wide == "？") return at + 3;
  if (text[at] != '.' && text[at] != '!' && text[at] != '?') return 0;
  const size_t space = skip_closing(text, at + 1);
  size_t word = space;
  while (word < text.size() && is_space(text[word])) ++word;
  if (word == space || word == text.size() || !can_begin_sentence(text, word)) return 0;
  return text[at] == '.' && space == at + 1 && abbreviates(text, at) ? 0 : space;
}

/// Whether the line break at `at` ends a paragraph of wrapped text.
bool ends_wrapped_paragraph(std::string_view text, size_t at) {
  size_t next = at + 1;
  while (next < text.size() && is_space(text[next]) && text[next] != '\n') ++next;
  if (next == text.size() || text[next] == '\n') return true;
  return (text[next] == '-' || text[next] == '*') && next + 1 < text.size() && text[next + 1] == ' ';
}

}  // namespace

std::vector<uint32_t> sentence_starts(std::string_view text, SentenceRule rule) {
  std::vector<uint32_t> starts{0};
  if (rule == SentenceRule::none) return starts;
  bool blank = true;  // nothing but white space since the last start
  const auto start_at = [&](size_t at) {
    if (!blank && at < text.size()) starts.push_back(static_cast<uint32_t>(at));
    blank = true;
  };
  for (size_t at = 0; at < text.size();) {
    if (text[at] == '\n' && (rule != SentenceRule::wrapped || ends_wrapped_paragraph(text, at))) {
      start_at(at++);
      continue;
    }
    blank = blank && is_space(text[at]);
    const size_t end = rule == SentenceRule::lines ? 0 : end_after(text, at);
    if (end) start_at(end);
    at = end ? end : at + 1;
  }
  if (blank && starts.size() > 1) starts.pop_back();
  return starts;
}

}  // namespace tessera
