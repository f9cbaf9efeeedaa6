#pragma once
#include "recipes/registry.h"

namespace tessera {

/// Everything that a recipe can name: the tables of models, objectives, optimizers, schedules and
/// ways to adapt.
const Catalog& catalog();

}  // namespace tessera
