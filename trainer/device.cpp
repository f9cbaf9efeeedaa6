#include "trainer/device.h"

#include <sys/resource.h>

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

double peak_memory_mib(at::Device device) {
  if (device.is_cuda()) return static_cast<double>(gpu_plugin().memory(device.index()).used) / 1048576;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

}  // namespace tessera
