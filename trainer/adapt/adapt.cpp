#include "trainer/adapt/adapt.h"

#include "trainer/adapt/freeze.h"

namespace tessera {
namespace {

struct FullOptions {};
template <class V>
void fields(FullOptions&, V&) {}

using AdaptRegistry = Registry<void, Model&, const Recipe&>;

const AdaptRegistry& methods() {
  static const AdaptRegistry registry(
      "method",
      {{choice<FullOptions>("full", "all parameters"), [](const Choice&, Model&, const Recipe&) {}},
       {choice<FreezeOptions>("freeze", "some of the parameters; the others stay as they are"),
        [](const Choice& given, Model& model, const Recipe& recipe) {
          freeze(model, given.as<FreezeOptions>(), recipe);
        }}},
      /*standard=*/"full");
  return registry;
}

}  // namespace

const ChoiceTable& adapt_choices() { return methods().choices(); }

void adapt(Model& model, const Recipe& recipe) { methods().make(recipe.adapt, model, recipe); }

}  // namespace tessera
