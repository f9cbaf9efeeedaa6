#pragma once
#include <string>
#include <vector>

#include "recipes/recipe.h"
#include "trainer/model.h"

namespace tessera {

/// What `adapt.method` may be. A new one: a file beside this and a line in adapt.cpp.
const ChoiceTable& adapt_choices();

/// Makes the recipe's choice of the model's parameters trainable and all others frozen, before they are
/// placed. `fresh`: parameters that the model it starts from lacked (StartModel::fit()). Errors: Error with
/// the recipe's place where a pattern matches nothing or nothing is left to train; it lists what there is.
void adapt(Model& model, const Recipe& recipe, const std::vector<std::string>& fresh);

/// Whether checkpoints hold only what is trained, and the rest is that of `model.from`.
bool keeps_base(const Recipe& recipe);

/// The parameters' own factors of the learning rate, before optimizer.groups.
void scale_learning_rates(std::vector<Parameter>& parameters, const Recipe& recipe);

}  // namespace tessera
