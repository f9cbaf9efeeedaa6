#pragma once
#include <c10/core/Device.h>

#include "recipes/sections.h"

namespace tessera {

/// Makes what is computed on a GPU from now on repeat bit for bit, where train.deterministic asks for it:
/// operations with several algorithms take one that adds in a fixed order, those that have none throw. Before
/// the first product there: cuBLAS reads CUBLAS_WORKSPACE_CONFIG then, which is set unless the user has set
/// it. A CPU needs none of this.
void set_determinism(const TrainSection& train, at::Device device);

}  // namespace tessera
