#include "trainer/device.h"

#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cstdlib>
#include <memory>

#include "parallel/plugin.h"

namespace tessera {
namespace {

/// Tensors' memory from malloc(), a cache line longer than asked for and aligned inside, so that a freed
/// block is just what the next tensor of its size takes. The C library's posix_memalign (of glibc 2.36) looks
/// for more than it needs and cuts that up: peaks were up to half as high again.
class HostAllocator : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &release, c10::Device(c10::kCPU)};
    auto* const block = static_cast<char*>(std::malloc(bytes + alignment));
    TORCH_CHECK_WITH(OutOfMemoryError, block, "can't allocate memory: ", bytes, " bytes");
    // malloc() aligns to 16, so that there is room for its pointer before the data.
    void* const begin = block + alignment - reinterpret_cast<uintptr_t>(block) % alignment;
    auto** data = static_cast<void**>(begin);
    data[-1] = block;
    return {data, data, &release, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }

 private:
  static constexpr uintptr_t alignment = 64;
  static void release(void* data) {
    if (data != nullptr) std::free(static_cast<void**>(data)[-1]);
  }
};

}  // namespace

at::Device choose_device(const Recipe& recipe, const World& world) {
  if (recipe.train.device == DeviceChoice::cpu) return at::kCPU;
  const GpuPlugin* plugin = recipe.train.device == DeviceChoice::cuda ? &gpu_plugin() : find_gpu_plugin();
  if (plugin == nullptr) return at::kCPU;
  const int device = device_for(world.local_rank(), plugin->device_count());
  plugin->set_device(device);
  return {at::kCUDA, static_cast<c10::DeviceIndex>(device)};
}

void prepare_host_memory() {
  static HostAllocator allocator;
  c10::SetCPUAllocator(&allocator, 1);
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
