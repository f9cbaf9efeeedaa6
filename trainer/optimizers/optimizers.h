#pragma once
#include <memory>

#include "recipes/registry.h"
#include "trainer/optimizer.h"

namespace tessera {

/// What `optimizer.name` may be. A new one: a file beside this and a line in optimizers.cpp.
const ChoiceTable& optimizer_choices();

/// The recipe's optimizer over these parameters, with its groups applied to them. Errors: a group that
/// matches none of them, nor of `elsewhere`: the names of parameters that other ranks step.
std::unique_ptr<Optimizer> make_optimizer(const Choice& choice, std::vector<Parameter> parameters,
                                          const std::vector<std::string>& elsewhere = {});

}  // namespace tessera
