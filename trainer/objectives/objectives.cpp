#include "trainer/objectives/objectives.h"

namespace tessera {
namespace {

// A new objective is one file and one entry here.
const Registry<ObjectivePtr, const ObjectiveSetting&>& objectives() {
  static const Registry<ObjectivePtr, const ObjectiveSetting&> registry(
      "name",
      {
          {choice<MaskingConfig>("mlm_nsp", "masked words, and whether the second sentence follows (BERT)"),
           [](const Choice& chosen, const ObjectiveSetting& setting) {
             return make_masked_lm(chosen.as<MaskingConfig>(), /*next_sentence=*/true, setting);
           }},
          {choice<MaskingConfig>("mlm", "masked words"),
           [](const Choice& chosen, const ObjectiveSetting& setting) {
             return make_masked_lm(chosen.as<MaskingConfig>(), /*next_sentence=*/false, setting);
           }},
          {choice<CausalConfig>("causal_lm", "the next word (GPT)"),
           [](const Choice&, const ObjectiveSetting& setting) { return make_causal_lm(setting); }},
      });
  return registry;
}

}  // namespace

const ChoiceTable& objective_choices() { return objectives().choices(); }

ObjectivePtr make_objective(const Choice& choice, const ObjectiveSetting& setting) {
  return objectives().make(choice, setting);
}

}  // namespace tessera
