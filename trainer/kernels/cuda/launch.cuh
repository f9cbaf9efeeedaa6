#pragma once
#include <ATen/cuda/CUDAContextLight.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime.h>

/// What our kernels take from CUDA's run-time library. tests/cuda/shadow has another file of this name, with which the
/// same sources run on a CPU.
namespace tessera::cuda {

using DeviceGuard = c10::cuda::CUDAGuard;

/// Of the current device.
inline int multiprocessors() { return at::cuda::getCurrentDeviceProperties()->multiProcessorCount; }
/// The most dynamic shared memory that a block may have, in bytes.
inline size_t max_shared_bytes() { return at::cuda::getCurrentDeviceProperties()->sharedMemPerBlockOptin; }

/// Starts kernel(args...) on the current stream, its blocks with this much dynamic shared memory.
template <class... Parameters, class... Arguments>
void launch_shared(size_t shared_bytes, void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments... args) {
  constexpr size_t without_asking = 47 << 10;  // of 48 KiB, of which a kernel's own shared variables take some
  if (shared_bytes > without_asking) {
    C10_CUDA_CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                        cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)));
  }
  kernel<<<grid, block, shared_bytes, c10::cuda::getCurrentCUDAStream()>>>(args...);
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

/// The same without dynamic shared memory.
template <class... Parameters, class... Arguments>
void launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, Arguments... args) {
  launch_shared(0, kernel, grid, block, args...);
}

/// The block's dynamic shared memory, aligned to 16 bytes.
__device__ inline void* dynamic_shared() {
  extern __shared__ uint4 tessera_dynamic_shared[];
  return tessera_dynamic_shared;
}

/// 16 bytes in one access; the address must be a multiple of 16.
__device__ inline uint4 load16(const void* from) { return *static_cast<const uint4*>(from); }
__device__ inline void store16(void* to, uint4 bytes) { *static_cast<uint4*>(to) = bytes; }

}  // namespace tessera::cuda
