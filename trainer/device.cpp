#include "trainer/device.h"

#include <c10/core/CPUAllocator.h>
#include <fmt/format.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <charconv>
#include <cstdlib>
#include <memory>

#include "recipes/error.h"

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

DeviceWish read_device(const std::string& text, const std::string& option) {
  for (const auto choice : {DeviceChoice::automatic, DeviceChoice::cpu, DeviceChoice::cuda}) {
    if (text == names_of(choice)[static_cast<size_t>(choice)]) return {choice};
  }
  const std::string numbered = "cuda:";
  if (text.starts_with(numbered)) {
    int number = -1;
    const char* end = text.data() + text.size();
    const auto [stop, failure] = std::from_chars(text.data() + numbered.size(), end, number);
    if (failure == std::errc() && stop == end && number >= 0) return {DeviceChoice::cuda, number};
  }
  throw Error(fmt::format("{}: unknown device '{}'{}", option, text,
                          valid_names(text, {"auto", "cpu", "cuda", "cuda:N"})));
}

at::Device choose_device(const DeviceWish& wish, int local_rank) {
  if (wish.choice == DeviceChoice::cpu) return at::kCPU;
  const GpuPlugin* plugin = wish.choice == DeviceChoice::cuda ? &gpu_plugin() : find_gpu_plugin();
  return plugin ? choose_gpu(wish, local_rank, *plugin) : at::Device(at::kCPU);
}

at::Device choose_gpu(const DeviceWish& wish, int local_rank, const GpuPlugin& plugin) {
  const int count = plugin.device_count();
  if (wish.number && *wish.number >= count) {
    throw Error(fmt::format("cuda:{}: this machine has {} GPU{} that CUDA sees; valid: {}", *wish.number,
                            count, count == 1 ? "" : "s",
                            count == 1 ? "cuda:0" : fmt::format("cuda:0 to cuda:{}", count - 1)));
  }
  const int device = wish.number.value_or(device_for(local_rank, count));
  plugin.set_device(device);
  return {at::kCUDA, static_cast<c10::DeviceIndex>(device)};
}

std::string device_notice(const DeviceWish& wish) {
  const bool told = wish.choice == DeviceChoice::automatic && !unused_gpu().empty();
  return told ? "computing on the CPU, although this machine has a GPU: " + unused_gpu() : "";
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
