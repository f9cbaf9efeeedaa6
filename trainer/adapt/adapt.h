#pragma once
#include <optional>
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
/// `step`: of the run, as some methods train other parameters later.
void adapt(Model& model, const Recipe& recipe, const std::vector<std::string>& fresh, int64_t step = 0);

/// The step after which other parameters are trained than at `step`; nothing: none.
std::optional<int64_t> next_stage(const Recipe& recipe, int64_t step);

/// Whether checkpoints hold only what is trained, and the rest is that of `model.from`.
bool keeps_base(const Recipe& recipe);

/// The parameters' own factors of the learning rate, before optimizer.groups.
void scale_learning_rates(std::vector<Parameter>& parameters, size_t num_blocks, const Recipe& recipe);

}  // namespace tessera
