#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tessera {

/// Fills `slice`, the rectangle at `offset` of a tensor of `global_shape`, with normal(0, deviation): element
/// i of the whole (row-major) is lane i % 4 of philox(counter i / 4, key) through Box and Muller's transform.
/// Any rank can so make any part of a parameter.
void fill_normal(at::Tensor& slice, uint64_t key, at::IntArrayRef global_shape, at::IntArrayRef offset,
                 double deviation);

}  // namespace tessera
