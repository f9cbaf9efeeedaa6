#include "trainer/objectives/label_names.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "recipes/error.h"

namespace tessera {
namespace {

std::optional<int64_t> whole_number(const std::string& text) {
  int64_t value = 0;
  const char* end = text.data() + text.size();
  const auto [stop, failure] = std::from_chars(text.data(), end, value);
  if (failure != std::errc() || stop != end) return std::nullopt;
  return value;
}

/// Not more than a terminal shows.
std::string some_names(const std::string& given, const std::vector<std::string>& names) {
  constexpr size_t most = 30;
  if (names.size() <= most) return valid_names(given, names);
  const std::vector<std::string> first(names.begin(), names.begin() + most);
  const std::string near = nearest(given, names);
  return fmt::format("; valid: {}, and {} more{}", join(first), names.size() - most,
                     near.empty() ? "" : "; did you mean '" + near + "'?");
}

}  // namespace

LabelNames::LabelNames(std::vector<std::string> names) : names_(std::move(names)) {
  for (size_t i = 0; i < names_.size(); ++i) {
    if (numbers_.emplace(names_[i], static_cast<int32_t>(i)).second) continue;
    throw Error(fmt::format("objective.labels: '{}' stands twice; valid: each name once", names_[i]));
  }
  numbered_ = std::none_of(names_.begin(), names_.end(),
                           [](const std::string& name) { return whole_number(name).has_value(); });
}

LabelNames LabelNames::of(const std::set<std::string>& found) {
  std::vector<std::string> names(found.begin(), found.end());
  const bool numbers = std::all_of(names.begin(), names.end(),
                                   [](const std::string& name) { return whole_number(name).has_value(); });
  if (numbers) {
    std::stable_sort(names.begin(), names.end(), [](const std::string& a, const std::string& b) {
      return *whole_number(a) < *whole_number(b);
    });
  }
  return LabelNames(std::move(names));
}

int32_t LabelNames::number(const std::string& label, const std::string& where) const {
  const auto found = numbers_.find(label);
  if (found != numbers_.end()) return found->second;
  const auto number = numbered_ ? whole_number(label) : std::nullopt;
  if (number && *number >= 0 && *number < size()) return static_cast<int32_t>(*number);
  throw Error(
      fmt::format("{}: '{}' is none of the {} labels{}", where, label, size(), some_names(label, names_)));
}

}  // namespace tessera
