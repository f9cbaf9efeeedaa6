#include "trainer/optimizers/optimizers.h"

#include "trainer/optimizers/adamw.h"
#include "trainer/optimizers/sgd.h"

namespace tessera {
namespace {

struct Entry {
  ChoiceEntry choice;
  std::unique_ptr<Optimizer> (*make)(const Choice&, std::vector<Parameter>);
};

template <class O, class Options>
Entry entry(const char* name, const char* summary) {
  return {choice<Options>(name, summary), [](const Choice& given, std::vector<Parameter> parameters) {
            const auto& options = given.as<Options>();
            apply_groups(parameters, options.groups);
            return std::unique_ptr<Optimizer>(std::make_unique<O>(std::move(parameters), options));
          }};
}

const std::vector<Entry>& table() {
  static const std::vector<Entry> entries = {
      entry<Adamw, AdamwOptions>("adamw", "Adam with decoupled weight decay"),
      entry<Sgd, SgdOptions>("sgd", "stochastic gradient descent with momentum"),
  };
  return entries;
}

}  // namespace

const ChoiceTable& optimizer_choices() {
  static const ChoiceTable choices = [] {
    ChoiceTable made{"name", {}};
    for (const auto& entry : table()) made.entries.push_back(entry.choice);
    return made;
  }();
  return choices;
}

std::unique_ptr<Optimizer> make_optimizer(const Choice& choice, std::vector<Parameter> parameters) {
  for (const auto& entry : table()) {
    if (entry.choice.name == choice.name()) return entry.make(choice, std::move(parameters));
  }
  throw std::logic_error("no optimizer '" + choice.name() + "'");
}

}  // namespace tessera
