#include "recipes/error.h"

#include <algorithm>
#include <numeric>

namespace tessera {
namespace {

/// Damerau-Levenshtein distance (adjacent transpositions count one), optimal string alignment form.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

constexpr size_t longest_line = 2500;
constexpr size_t longest_name = 256;  // distances take the product of two lengths

bool continues_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

std::string without_middle(std::string line) {
  if (line.size() <= longest_line) return line;
  size_t head = longest_line - 500, tail = line.size() - 400;
  while (continues_character(line[head])) --head;
  while (tail < line.size() && continues_character(line[tail])) ++tail;
  return line.substr(0, head) + " … " + line.substr(tail);
}

std::string readable(const std::string& message) {
  std::string result;
  for (size_t begin = 0; begin <= message.size();) {
    const size_t end = std::min(message.find('\n', begin), message.size());
    if (begin > 0) result += '\n';
    result += without_middle(message.substr(begin, end - begin));
    begin = end + 1;
  }
  return result;
}

}  // namespace

Error::Error(const std::string& message) : std::runtime_error(readable(message)) {}

std::string nearest(std::string_view given, const std::vector<std::string>& candidates) {
  std::string best;
  if (given.size() > longest_name) return best;
  size_t best_distance = std::max<size_t>(1, given.size() / 3) + 1;
  for (const auto& candidate : candidates) {
    if (candidate.size() > longest_name) continue;
    const size_t distance = edit_distance(given, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string text;
  for (size_t i = 0; i < parts.size(); ++i) text.append(i ? separator : "").append(parts[i]);
  return text;
}

std::string valid_names(std::string_view given, const std::vector<std::string>& candidates) {
  std::string text = "; valid: " + join(candidates);
  const std::string near = nearest(given, candidates);
  if (!near.empty()) text += "; did you mean '" + near + "'?";
  return text;
}

}  // namespace tessera
