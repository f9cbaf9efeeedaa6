#include "trainer/adapt/freeze.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>

#include "recipes/recipe.h"
#include "trainer/parameters.h"
#include "trainer/placement.h"

namespace tessera {
namespace {

/// Patterns of a key of the recipe; remembers which have matched.
class Patterns {
 public:
  Patterns(std::string key, std::vector<std::string> patterns)
      : key_(std::move(key)), patterns_(std::move(patterns)), used_(patterns_.size(), false) {}

  bool match(const std::string& name) {
    bool matched = false;
    for (size_t i = 0; i < patterns_.size(); ++i) {
      if (fnmatch(patterns_[i].c_str(), name.c_str(), 0) != 0) continue;
      matched = used_[i] = true;
    }
    return matched;
  }

  void expect_all_used(const std::vector<NamedParameter>& parameters, const Recipe& recipe) const {
    const auto unused = std::find(used_.begin(), used_.end(), false);
    if (unused == used_.end()) return;
    const std::string& pattern = patterns_[static_cast<size_t>(unused - used_.begin())];
    std::vector<std::string> names;
    for (const auto& parameter : parameters) names.push_back(parameter.name);
    const std::string near = nearest(pattern, names);
    throw recipe.error(
        key_, fmt::format("'{}' matches none of the {} parameters{}; there are: {}", pattern, names.size(),
                          near.empty() ? "" : "; did you mean '" + near + "'?", join(name_patterns(names))));
  }

 private:
  std::string key_;
  std::vector<std::string> patterns_;
  std::vector<bool> used_;
};

}  // namespace

void check(const FreezeOptions& t, Problems& problems) {
  if (!t.train.empty() || t.last_blocks > 0 || !t.freeze.empty()) return;
  problems.add("",
               "says neither what to train nor what to freeze; valid: at least one of train, last_blocks, "
               "freeze");
}

void freeze(Model& model, const FreezeOptions& options, const Recipe& recipe) {
  const auto num_blocks = static_cast<int64_t>(model.blocks().size());
  if (options.last_blocks > num_blocks) {
    throw recipe.error("adapt.last_blocks", fmt::format("{} of the model's {} blocks; valid: 0 to {}",
                                                        options.last_blocks, num_blocks, num_blocks));
  }
  const bool all = options.train.empty() && options.last_blocks == 0;
  Patterns train("adapt.train", options.train), frozen("adapt.freeze", options.freeze);
  const auto parameters = parameters_once(model);
  const auto first = static_cast<size_t>(num_blocks - options.last_blocks) + 1;  // unit that is trained
  bool any = false;
  for (const auto& [name, tensor] : parameters) {
    const size_t unit = unit_of(name);
    const bool last =
        options.last_blocks > 0 && (unit == 0 ? !name.starts_with("embeddings.") : unit >= first);
    const bool chosen = train.match(name) || last || all;
    const bool trained = !frozen.match(name) && chosen;
    at::Tensor(tensor).set_requires_grad(trained);
    any = any || trained;
  }
  train.expect_all_used(parameters, recipe);
  frozen.expect_all_used(parameters, recipe);
  if (any) return;
  throw recipe.error("adapt.freeze", "nothing is left to train; valid: patterns that leave some parameters");
}

}  // namespace tessera
