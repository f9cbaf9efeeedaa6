#include "datasets/tokenizer/added_tokens.h"

#include <algorithm>
#include <cstring>

#include "datasets/tokenizer/unicode.h"

namespace tessera {
namespace {

bool ends_with_word(std::string_view text) {
  if (text.empty()) return false;
  const char* p = text.data() + text.size() - 1;
  while (!unicode::starts_character(*p)) --p;
  return unicode::is_word(unicode::next(p));
}

bool starts_with_word(std::string_view text) {
  const char* p = text.data();
  return !text.empty() && unicode::is_word(unicode::next(p));
}

size_t trailing_space(std::string_view text) {
  size_t begin = text.size();
  while (begin > 0) {
    size_t start = begin - 1;
    while (!unicode::starts_character(text[start])) --start;
    const char* p = text.data() + start;
    if (!unicode::is_whitespace(unicode::next(p))) break;
    begin = start;
  }
  return begin;
}

size_t leading_space(std::string_view text) {
  const char* p = text.data();
  const char* end = p + text.size();
  while (p < end) {
    const char* after = p;
    if (!unicode::is_whitespace(unicode::next(after))) break;
    p = after;
  }
  return p - text.data();
}

}  // namespace

void AddedTokenFinder::add(const AddedToken* token) {
  const size_t known = map_.size();
  if (map_.insert(token->normal) != known) return;  // the same text twice: the first wins
  map_.value(known) = static_cast<int64_t>(tokens_.size());
  tokens_.push_back(token);
  const int first = static_cast<unsigned char>(token->normal[0]);
  auto& lengths = lengths_[first];
  const auto length = static_cast<uint32_t>(token->normal.size());
  const auto at = std::lower_bound(lengths.begin(), lengths.end(), length, std::greater<>());
  if (at == lengths.end() || *at != length) lengths.insert(at, length);
  only_first_byte_ = tokens_.size() == 1 || only_first_byte_ == first ? first : -1;
}

const AddedToken* AddedTokenFinder::match(std::string_view text, size_t position) const {
  for (const uint32_t length : lengths_[static_cast<unsigned char>(text[position])]) {
    if (length > text.size() - position) continue;
    const size_t found = map_.find(text.substr(position, length));
    if (found != StringMap::none) return tokens_[map_.value(found)];
  }
  return nullptr;
}

size_t AddedTokenFinder::next_candidate(std::string_view text, size_t position) const {
  if (only_first_byte_ >= 0)
    return std::min(text.find(static_cast<char>(only_first_byte_), position), text.size());
  while (position < text.size() && lengths_[static_cast<unsigned char>(text[position])].empty()) ++position;
  return position;
}

void AddedTokenFinder::split(std::string_view text, std::vector<Segment>& segments) const {
  segments.clear();
  size_t done = 0;
  size_t position = tokens_.empty() ? text.size() : 0;
  while ((position = next_candidate(text, position)) < text.size()) {
    const AddedToken* token = match(text, position);
    if (!token) {
      ++position;
      continue;
    }
    size_t begin = position;
    size_t end = position + token->normal.size();
    position = end;
    if (token->single_word && (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end))))
      continue;
    if (token->lstrip) begin = std::max(trailing_space(text.substr(0, begin)), done);
    if (token->rstrip) end += leading_space(text.substr(end));
    if (done < begin) segments.push_back({done, begin, nullptr});
    segments.push_back({begin, end, token});
    done = end;
  }
  if (done < text.size()) segments.push_back({done, text.size(), nullptr});
}

}  // namespace tessera
