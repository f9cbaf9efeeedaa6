#pragma once
#include <ATen/core/Tensor.h>

namespace tessera {

struct GpuPlugin;

/// Memory of the host, not filled, for what travels to and from `device`: on a GPU's account page-locked, on
/// the CPU's as any other. ATen does not know which copies use it: who writes into it again waits for them.
at::Tensor host_empty(at::IntArrayRef sizes, at::ScalarType type, at::Device device);

/// Page-locked memory for a GPU, in as many pages as it fills: ATen's own is rounded up to powers of two.
/// Freeing it waits for all that the GPU has been given to do.
at::Tensor pinned_empty(at::IntArrayRef sizes, at::ScalarType type, const GpuPlugin& plugin, int device);

}  // namespace tessera
