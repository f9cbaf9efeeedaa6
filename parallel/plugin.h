#pragma once
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

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

/// Why this machine's GPU is not used, and what mends that; "" where one is used, where there is none, and
/// where the user hides them all.
const std::string& unused_gpu();

/// The device of a rank: hosts give their GPUs to their ranks in turn.
int device_for(int local_rank, int device_count);

/// What decides whether GPUs are used; tests make up their own.
struct GpuMachine {
  bool shows_gpu = false;                      ///< the driver's device file is there
  std::optional<std::string> visible_devices;  ///< CUDA_VISIBLE_DEVICES
  std::string driver;                          ///< "580.65.06"; "": not known
  std::vector<std::filesystem::path> folders;  ///< where the plug-in may be
};
struct GpuSearch {
  std::unique_ptr<GpuPlugin> plugin;
  std::string why_not;   ///< where there is no plugin
  bool a_fault = false;  ///< there is a GPU that somebody would want to be used
};
GpuSearch search_gpu(const GpuMachine& machine);
/// Why CUDA, loaded, sees none of them.
std::string why_no_device(const GpuMachine& machine);

}  // namespace tessera

/// The plug-in's only entry.
extern "C" void tessera_cuda_register(tessera::GpuPlugin& plugin);
