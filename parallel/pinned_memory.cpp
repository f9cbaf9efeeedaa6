#include "parallel/pinned_memory.h"

#include <ATen/ATen.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>

#include "parallel/plugin.h"
#include "parallel/unwinding.h"

namespace tessera {
namespace {

size_t page_size() {
  static const auto size = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return size;
}

/// Whole pages that are nobody else's; where they fill large ones, at the boundary of one.
void* map_pages(size_t bytes) {
  constexpr size_t large_page = size_t{2} << 20;
  const size_t alignment = bytes < large_page ? page_size() : large_page;
  const size_t reserved = bytes + alignment - page_size();
  void* const mapped = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  TORCH_CHECK_WITH(OutOfMemoryError, mapped != MAP_FAILED, "can't allocate memory: ", reserved, " bytes");
  void* begin = mapped;
  size_t rest = reserved;
  std::align(alignment, bytes, begin, rest);
  if (rest < reserved) munmap(mapped, reserved - rest);
  if (rest > bytes) munmap(static_cast<std::byte*>(begin) + bytes, rest - bytes);
  madvise(begin, bytes, MADV_HUGEPAGE);
  return begin;
}

}  // namespace

at::Tensor host_empty(at::IntArrayRef sizes, at::ScalarType type, at::Device device) {
  if (device.is_cpu()) return at::empty(sizes, type);
  return pinned_empty(sizes, type, gpu_plugin(), device.index());
}

at::Tensor pinned_empty(at::IntArrayRef sizes, at::ScalarType type, const GpuPlugin& plugin, int device) {
  const size_t filled = static_cast<size_t>(c10::multiply_integers(sizes)) * c10::elementSize(type);
  if (filled == 0) return at::empty(sizes, type);
  const size_t bytes = (filled + page_size() - 1) / page_size() * page_size();
  void* const begin = map_pages(bytes);
  try {
    plugin.register_host(begin, bytes, device);
  } catch (...) {
    munmap(begin, bytes);
    throw;
  }
  const auto release = [unregister = plugin.unregister_host, bytes, device,
                        unwinding = Unwinding()](void* memory) {
    // The device may wait for ranks that never come: the process is ending.
    if (!unwinding && unregister(memory, device)) munmap(memory, bytes);
  };
  return at::from_blob(begin, sizes, release, at::TensorOptions(type));
}

}  // namespace tessera
