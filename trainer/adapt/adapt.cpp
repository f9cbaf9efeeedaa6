#include "trainer/adapt/adapt.h"

#include <algorithm>

#include "trainer/adapt/freeze.h"
#include "trainer/adapt/lora.h"

namespace tessera {
namespace {

struct FullOptions {};
template <class V>
void fields(FullOptions&, V&) {}

using Fresh = const std::vector<std::string>&;
using AdaptRegistry = Registry<void, Model&, const Recipe&, Fresh>;

const AdaptRegistry& methods() {
  static const AdaptRegistry registry(
      "method",
      {{choice<FullOptions>("full", "all parameters"), [](const Choice&, Model&, const Recipe&, Fresh) {}},
       {choice<FreezeOptions>("freeze", "some of the parameters; the others stay as they are"),
        [](const Choice& given, Model& model, const Recipe& recipe, Fresh) {
          freeze(model, given.as<FreezeOptions>(), recipe);
        }},
       {choice<FullOptions>("head", "only the heads, what follows the last block"),
        [](const Choice&, Model& model, const Recipe& recipe, Fresh) { train_heads(model, recipe); }},
       {choice<LoraOptions>("lora", "low-rank parts beside frozen layers (Hu et al., 2021)"),
        [](const Choice& given, Model& model, const Recipe& recipe, Fresh fresh) {
          lora(model, given.as<LoraOptions>(), fresh, recipe);
        }}},
      /*standard=*/"full");
  return registry;
}

}  // namespace

const ChoiceTable& adapt_choices() { return methods().choices(); }

void adapt(Model& model, const Recipe& recipe, const std::vector<std::string>& fresh) {
  methods().make(recipe.adapt, model, recipe, fresh);
}

bool keeps_base(const Recipe& recipe) { return recipe.adapt.get_if<LoraOptions>() != nullptr; }

void scale_learning_rates(std::vector<Parameter>& parameters, const Recipe& recipe) {
  const auto* options = recipe.adapt.get_if<LoraOptions>();
  if (!options) return;
  for (auto& parameter : parameters) {
    if (parameter.name.ends_with(".lora.b")) parameter.learning_rate_scale = options->rate_ratio;
  }
}

}  // namespace tessera
