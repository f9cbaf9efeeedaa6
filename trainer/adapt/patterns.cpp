#include "trainer/adapt/patterns.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>

#include "trainer/parameters.h"

namespace tessera {

bool pattern_means(const std::string& pattern, const std::string& name) {
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0 || name.starts_with(pattern + ".") ||
         name.ends_with("." + pattern);
}

bool Patterns::match(const std::vector<std::string>& names) {
  bool matched = false;
  for (size_t i = 0; i < patterns_.size(); ++i) {
    const auto means = [&](const std::string& name) { return pattern_means(patterns_[i], name); };
    if (std::any_of(names.begin(), names.end(), means)) matched = used_[i] = true;
  }
  return matched;
}

void Patterns::expect_all_used(const std::string& things, const std::vector<std::string>& names,
                               const Recipe& recipe) const {
  const auto unused = std::find(used_.begin(), used_.end(), false);
  if (unused == used_.end()) return;
  const std::string& pattern = patterns_[static_cast<size_t>(unused - used_.begin())];
  const std::string near = nearest(pattern, names);
  throw recipe.error(
      key_, fmt::format("'{}' matches none of the {} {}{}; there are: {}", pattern, names.size(), things,
                        near.empty() ? "" : "; did you mean '" + near + "'?", join(name_patterns(names))));
}

}  // namespace tessera
