#pragma once
#include "recipes/recipe.h"
#include "trainer/model.h"

namespace tessera {

/// What `adapt.method` may be. A new one: a file beside this and a line in adapt.cpp.
const ChoiceTable& adapt_choices();

/// Makes the recipe's choice of the model's parameters trainable and all others frozen, before they are
/// placed. Errors: Error with the recipe's place where a pattern matches no parameter or nothing is left to
/// train; it lists what there is.
void adapt(Model& model, const Recipe& recipe);

}  // namespace tessera
