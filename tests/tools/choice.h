#pragma once
#include <string>

#include "recipes/error.h"
#include "recipes/registry.h"

namespace tessera {

/// A recipe's section out of YAML text: "name: linear\nwarm_up: 5%". Errors: those that a recipe would give.
inline Choice read_choice(const std::string& text, const ChoiceTable& table) {
  ProblemList list;
  const Place place{.origin = "arguments"};
  const auto section = parse_yaml(text, place, list);
  list.throw_if_any();
  Problems problems(list, &*section, place, "");
  Choice choice;
  Value<Choice>::read(*section, choice, make_rules(from(table)), problems);
  list.throw_if_any();
  return choice;
}

}  // namespace tessera
