#include "trainer/adapt/freeze.h"

#include <fmt/format.h>

#include "trainer/adapt/patterns.h"
#include "trainer/parameters.h"
#include "trainer/placement.h"

namespace tessera {
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
  std::vector<std::string> names;
  for (const auto& [name, tensor] : parameters) {
    names.push_back(name);
    const size_t unit = unit_of(name);
    const bool last =
        options.last_blocks > 0 && (unit == 0 ? !name.starts_with("embeddings.") : unit >= first);
    const bool chosen = train.match(name) || last || all;
    const bool trained = !frozen.match(name) && chosen;
    at::Tensor(tensor).set_requires_grad(trained);
    any = any || trained;
  }
  train.expect_all_used("parameters", names, recipe);
  frozen.expect_all_used("parameters", names, recipe);
  if (any) return;
  throw recipe.error("adapt.freeze", "nothing is left to train; valid: patterns that leave some parameters");
}

bool is_head(const std::string& name) {
  return unit_of(name) == 0 && !name.starts_with("embeddings.") && !name.starts_with("norm.");
}

void train_heads(Model& model, const Recipe& recipe) {
  bool any = false;
  for (const auto& [name, tensor] : parameters_once(model)) {
    at::Tensor(tensor).set_requires_grad(is_head(name));
    any = any || is_head(name);
  }
  if (any) return;
  throw recipe.error("adapt.method",
                     "head: the model's only head is its table of words; valid: full, freeze, lora");
}

}  // namespace tessera
