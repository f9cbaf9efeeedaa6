#pragma once
#include <c10/core/Device.h>

#include "parallel/world.h"
#include "recipes/recipe.h"

namespace tessera {

/// The device of this rank: the GPU of its local rank, or the CPU, as train.device says. Errors: Error where
/// a GPU is asked for and there is none.
at::Device choose_device(const Recipe& recipe, const World& world);

/// Makes the C library keep the memory of freed tensors for the next ones, and the kernel give it in large
/// pages: fresh pages cost more than filling them (5 % of a small model's step, 0.1 s of start-up). Called
/// before there are threads that compute.
void prepare_host_memory();

/// Largest memory of this process so far: resident on the CPU, in tensors on a GPU; MiB.
double peak_memory_mib(at::Device device);

}  // namespace tessera
