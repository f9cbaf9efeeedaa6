#pragma once
#include <string>
#include <vector>

#include "recipes/recipe.h"

namespace tessera {

/// Whether a pattern of a recipe means a parameter or layer: its full name, shell style (* ? [a-z], where *
/// also matches dots), or the beginning or the end of it, up to a dot: "layers.3", "query".
bool pattern_means(const std::string& pattern, const std::string& name);

/// Patterns of a key of the recipe; remembers which have matched.
class Patterns {
 public:
  Patterns(std::string key, std::vector<std::string> patterns)
      : key_(std::move(key)), patterns_(std::move(patterns)), used_(patterns_.size(), false) {}

  /// Also true for one of several names of the same thing.
  bool match(const std::vector<std::string>& names);
  bool match(const std::string& name) { return match(std::vector{name}); }
  /// Errors: Error with the recipe's place where one has matched nothing; it lists what there is. `things`:
  /// "parameters".
  void expect_all_used(const std::string& things, const std::vector<std::string>& names,
                       const Recipe& recipe) const;

 private:
  std::string key_;
  std::vector<std::string> patterns_;
  std::vector<bool> used_;
};

}  // namespace tessera
