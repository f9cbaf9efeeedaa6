#pragma once
#include "recipes/registry.h"

namespace tessera {

/// Everything that a recipe can name: the tables of models, objectives, optimizers and schedules.
const Catalog& catalog();

}  // namespace tessera
