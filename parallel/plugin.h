#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <string>

namespace tessera {

class Transport;

/// What the GPU plug-in libtessera_cuda.so offers. It is loaded where there is a GPU only: a program that
/// links LibTorch's CUDA libraries starts 0.1 s later. Its kernels join ATen's dispatcher by themselves when
/// it is loaded.
struct GpuPlugin {
  struct Memory {
    int64_t used = 0;   ///< bytes in tensors of this process, the most since the last call
    int64_t total = 0;  ///< bytes of the device
  };
  struct TransportOptions {
    int rank = 0;
    int size = 1;
    int device = 0;
    std::chrono::milliseconds time_limit{0};
    /// Gives rank 0's bytes to all ranks.
    std::function<void(void* bytes, size_t size)> broadcast;
  };
  int (*device_count)() = nullptr;
  std::string (*device_name)(int device) = nullptr;
  void (*set_device)(int device) = nullptr;
  Memory (*memory)(int device) = nullptr;
  /// Page-locks whole pages of the host, so that copies to and from the device use them directly.
  void (*register_host)(void* begin, size_t bytes, int device) = nullptr;
  /// Undoes that, once the device has done all that it was given; false where it cannot any more.
  bool (*unregister_host)(void* begin, int device) = nullptr;
  /// NCCL among ranks of one GPU each.
  std::shared_ptr<Transport> (*make_transport)(const TransportOptions& options) = nullptr;
};

/// Null where this machine shows no GPU or the program was built without GPU support.
const GpuPlugin* find_gpu_plugin();

/// Throws Error that says what is missing: the GPU, the plug-in, or a library that it needs.
const GpuPlugin& gpu_plugin();

/// The device of a rank: hosts give their GPUs to their ranks in turn.
int device_for(int local_rank, int device_count);

}  // namespace tessera

/// The plug-in's only entry.
extern "C" void tessera_cuda_register(tessera::GpuPlugin& plugin);
