#include "parallel/cuda/host_memory.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>

namespace tessera {
namespace {

void register_host(void* begin, size_t bytes, int device) {
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
  C10_CUDA_CHECK(cudaHostRegister(begin, bytes, cudaHostRegisterDefault));
}

// Called where tensors are freed, where nothing may be thrown, perhaps when CUDA has failed or is unloading.
bool unregister_host(void* begin, int device) {
  try {
    const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
    return cudaDeviceSynchronize() == cudaSuccess && cudaHostUnregister(begin) == cudaSuccess;
  } catch (const c10::Error&) {
    return false;
  }
}

}  // namespace

void offer_host_memory(GpuPlugin& plugin) {
  plugin.register_host = register_host;
  plugin.unregister_host = unregister_host;
}

}  // namespace tessera
