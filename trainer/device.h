#pragma once
#include <c10/core/Device.h>

#include "parallel/world.h"
#include "recipes/recipe.h"

namespace tessera {

/// The device of this rank: the GPU of its local rank, or the CPU, as train.device says. Errors: Error where
/// a GPU is asked for and there is none.
at::Device choose_device(const Recipe& recipe, const World& world);

/// Largest memory of this process so far: resident on the CPU, in tensors on a GPU; MiB.
double peak_memory_mib(at::Device device);

}  // namespace tessera
