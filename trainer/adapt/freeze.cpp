#include "trainer/adapt/freeze.h"

#include <fmt/format.h>

#include <algorithm>

#include "trainer/adapt/patterns.h"
#include "trainer/parameters.h"
#include "trainer/placement.h"

namespace tessera {
void check(const FreezeStage& t, Problems& problems) {
  if (!t.train.empty() || t.last_blocks > 0 || !t.freeze.empty()) return;
  problems.add("",
               "says neither what to train nor what to freeze; valid: at least one of train, last_blocks, "
               "freeze");
}

void check(const FreezeOptions& t, Problems& problems) {
  check(static_cast<const FreezeStage&>(t), problems);
  for (size_t i = 1; i < t.stages.size(); ++i) {
    if (t.stages[i].step > t.stages[i - 1].step) continue;
    problems.add("stages", fmt::format("begin after steps {} and {}; valid: rising steps",
                                       t.stages[i - 1].step, t.stages[i].step));
  }
}

namespace {

const FreezeStage& choice_at(const FreezeOptions& options, size_t stage) {
  return stage == 0 ? static_cast<const FreezeStage&>(options) : options.stages[stage - 1];
}

bool any_means(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return pattern_means(pattern, name); });
}

bool trains(const FreezeStage& stage, const std::string& name, int64_t num_blocks) {
  const size_t unit = unit_of(name);
  const auto first = static_cast<size_t>(num_blocks - stage.last_blocks) + 1;  // unit that is trained
  const bool last = stage.last_blocks > 0 && (unit == 0 ? !name.starts_with("embeddings.") : unit >= first);
  const bool all = stage.train.empty() && stage.last_blocks == 0;
  return (all || last || any_means(stage.train, name)) && !any_means(stage.freeze, name);
}

}  // namespace

size_t stage_of(const FreezeOptions& options, int64_t step) {
  size_t stage = 0;
  for (const FreezeStage& each : options.stages) stage += each.step <= step ? 1 : 0;
  return stage;
}

size_t trained_since(const FreezeOptions& options, size_t stage, const std::string& parameter,
                     int64_t num_blocks) {
  while (stage > 0 && trains(choice_at(options, stage - 1), parameter, num_blocks)) --stage;
  return stage;
}

void freeze(Model& model, const FreezeOptions& options, size_t stage, const Recipe& recipe) {
  const auto num_blocks = static_cast<int64_t>(model.blocks().size());
  const auto parameters = parameters_once(model);
  std::vector<std::string> names;
  for (const auto& parameter : parameters) names.push_back(parameter.name);
  // All stages are checked before the first begins.
  for (size_t i = 0; i <= options.stages.size(); ++i) {
    const FreezeStage& choice = choice_at(options, i);
    const std::string key = i == 0 ? "adapt" : fmt::format("adapt.stages[{}]", i - 1);
    if (choice.last_blocks > num_blocks) {
      throw recipe.error(key + ".last_blocks", fmt::format("{} of the model's {} blocks; valid: 0 to {}",
                                                           choice.last_blocks, num_blocks, num_blocks));
    }
    Patterns train(key + ".train", choice.train), frozen(key + ".freeze", choice.freeze);
    bool any = false;
    for (const auto& [name, tensor] : parameters) {
      train.match(name);
      frozen.match(name);
      const bool trained = trains(choice, name, num_blocks);
      if (i == stage) at::Tensor(tensor).set_requires_grad(trained);
      any = any || trained;
    }
    train.expect_all_used("parameters", names, recipe);
    frozen.expect_all_used("parameters", names, recipe);
    if (!any)
      throw recipe.error(key + ".freeze",
                         "nothing is left to train; valid: patterns that leave some parameters");
  }
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
