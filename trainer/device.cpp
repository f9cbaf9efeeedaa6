#include "trainer/device.h"

#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cstdlib>
#include <memory>

#include "parallel/plugin.h"

namespace tessera {

at::Device choose_device(const Recipe& recipe, const World& world) {
  if (recipe.train.device == DeviceChoice::cpu) return at::kCPU;
  const GpuPlugin* plugin = recipe.train.device == DeviceChoice::cuda ? &gpu_plugin() : find_gpu_plugin();
  if (plugin == nullptr) return at::kCPU;
  const int device = device_for(world.local_rank(), plugin->device_count());
  plugin->set_device(device);
  return {at::kCUDA, static_cast<c10::DeviceIndex>(device)};
}

void prepare_host_memory() {
  mallopt(M_MMAP_MAX, 0);
  mallopt(M_TRIM_THRESHOLD, -1);
  // The heap's first part, all of it in large pages once it is used; what comes after is in ordinary ones.
  constexpr size_t bytes = size_t{1} << 30, large_page = size_t{2} << 20;
  void* volatile grown = std::malloc(bytes);
  if (grown == nullptr) return;  // a limit on virtual memory
  void* begin = grown;
  size_t space = bytes;
  madvise(std::align(large_page, bytes - large_page, begin, space), bytes - large_page, MADV_HUGEPAGE);
  std::free(grown);
}

double peak_memory_mib(at::Device device) {
  if (device.is_cuda()) return static_cast<double>(gpu_plugin().memory(device.index()).used) / 1048576;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

}  // namespace tessera
