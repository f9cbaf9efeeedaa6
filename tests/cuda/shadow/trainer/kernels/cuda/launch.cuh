#pragma once
#include <ATen/core/Tensor.h>

#include "tests/cuda/fibres.h"

// Stands in for the file of this name in trainer/: kernels run on the CPU, on CPU tensors.
namespace tessera::cuda {

struct DeviceGuard {
  explicit DeviceGuard(at::Device) {}
};

inline int multiprocessors() { return 3; }
inline size_t max_shared_bytes() { return fibres::max_shared_bytes; }

template <class... Parameters, class... Arguments>
void launch_shared(size_t shared_bytes, void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments... args) {
  fibres::run(shared_bytes, grid, block, [&] { kernel(args...); });
}

template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments... args) {
  launch_shared(0, kernel, grid, block, args...);
}

inline void* dynamic_shared() { return fibres::dynamic_shared(); }

inline uint4 load16(const void* from) {
  fibres::check_alignment(from);
  return *static_cast<const uint4*>(from);
}
inline void store16(void* to, uint4 bytes) {
  fibres::check_alignment(to);
  *static_cast<uint4*>(to) = bytes;
}

}  // namespace tessera::cuda
