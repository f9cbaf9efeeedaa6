#include "trainer/adapt/adapt.h"

#include <cmath>

#include "trainer/adapt/freeze.h"
#include "trainer/adapt/lora.h"

namespace tessera {
namespace {

struct FullOptions {
  double layer_decay = 1;
};
template <class V>
void fields(FullOptions& t, V& v) {
  v("layer_decay", t.layer_decay, decay_docs, above(0));
}

struct HeadOptions {};
template <class V>
void fields(HeadOptions&, V&) {}

/// What is known when the model is adapted.
struct Now {
  const Recipe& recipe;
  const std::vector<std::string>& fresh;
  int64_t step;
};
using AdaptRegistry = Registry<void, Model&, const Now&>;

const AdaptRegistry& methods() {
  static const AdaptRegistry registry(
      "method",
      {{choice<FullOptions>("full", "all parameters"), [](const Choice&, Model&, const Now&) {}},
       {choice<FreezeOptions>("freeze", "some of the parameters; the others stay as they are"),
        [](const Choice& given, Model& model, const Now& now) {
          const auto& options = given.as<FreezeOptions>();
          freeze(model, options, stage_of(options, now.step), now.recipe);
        }},
       {choice<HeadOptions>("head", "only the heads, what follows the last block"),
        [](const Choice&, Model& model, const Now& now) { train_heads(model, now.recipe); }},
       {choice<LoraOptions>("lora", "low-rank parts beside frozen layers (Hu et al., 2021)"),
        [](const Choice& given, Model& model, const Now& now) {
          lora(model, given.as<LoraOptions>(), now.fresh, now.recipe);
        }}},
      /*standard=*/"full");
  return registry;
}

}  // namespace

const ChoiceTable& adapt_choices() { return methods().choices(); }

void adapt(Model& model, const Recipe& recipe, const std::vector<std::string>& fresh, int64_t step) {
  methods().make(recipe.adapt, model, {recipe, fresh, step});
}

std::optional<int64_t> next_stage(const Recipe& recipe, int64_t step) {
  const auto* options = recipe.adapt.get_if<FreezeOptions>();
  if (!options) return std::nullopt;
  const size_t stage = stage_of(*options, step);
  if (stage == options->stages.size()) return std::nullopt;
  return options->stages[stage].step;
}

bool keeps_base(const Recipe& recipe) { return recipe.adapt.get_if<LoraOptions>() != nullptr; }

void scale_learning_rates(std::vector<Parameter>& parameters, size_t num_blocks, const Recipe& recipe) {
  const double decay = recipe.adapt.number("layer_decay").value_or(1);
  const auto* options = recipe.adapt.get_if<LoraOptions>();
  for (auto& parameter : parameters) {
    const size_t unit = unit_of(parameter.name);
    const size_t depth = unit > 0                                    ? num_blocks + 1 - unit
                         : parameter.name.starts_with("embeddings.") ? num_blocks + 1
                                                                     : 0;
    parameter.learning_rate_scale = std::pow(decay, static_cast<double>(depth));
    if (options && parameter.name.ends_with(".lora.b")) parameter.learning_rate_scale *= options->rate_ratio;
  }
}

}  // namespace tessera
