#include "trainer/objectives/objectives.h"

#include <functional>

namespace tessera {
namespace {

struct Entry {
  ChoiceEntry choice;
  std::function<ObjectivePtr(const Choice&, const ObjectiveSetting&)> make;
};

// A new objective is one file and one entry here.
const std::vector<Entry>& table() {
  static const std::vector<Entry> entries{
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
  };
  return entries;
}

}  // namespace

ChoiceTable objective_choices() {
  ChoiceTable choices{"name", {}};
  for (const Entry& entry : table()) choices.entries.push_back(entry.choice);
  return choices;
}

ObjectivePtr make_objective(const Choice& choice, const ObjectiveSetting& setting) {
  for (const Entry& entry : table()) {
    if (entry.choice.name == choice.name()) return entry.make(choice, setting);
  }
  throw Error("objective.name: unknown '" + choice.name() + "'" +
              valid_names(choice.name(), objective_choices().names()));
}

}  // namespace tessera
