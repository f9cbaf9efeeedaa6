#include "parallel/pinned_memory.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <torch/torch.h>
#include <unistd.h>

#include <map>

#include "parallel/plugin.h"

namespace tessera {
namespace {

/// What a GPU plug-in was told: bytes by address while they are locked, and what has been let go.
struct Locked {
  std::map<void*, size_t> bytes;
  int num_registered = 0, num_unregistered = 0, device = -1;
  bool lets_go = true;
};
Locked locked;

GpuPlugin fake_plugin() {
  locked = {};
  GpuPlugin plugin;
  plugin.register_host = [](void* begin, size_t bytes, int device) {
    EXPECT_TRUE(locked.bytes.emplace(begin, bytes).second);
    ++locked.num_registered;
    locked.device = device;
  };
  plugin.unregister_host = [](void* begin, int device) {
    EXPECT_EQ(device, locked.device);
    EXPECT_EQ(locked.bytes.erase(begin), 1);
    ++locked.num_unregistered;
    return locked.lets_go;
  };
  return plugin;
}

bool is_mapped(void* page) {
  std::array<unsigned char, 1> here{};
  return mincore(page, 1, here.data()) == 0;
}

TEST(PinnedMemory, IsAsLargeAsItsPagesAndLockedOnce) {
  const GpuPlugin plugin = fake_plugin();
  const auto page = static_cast<size_t>(getpagesize());
  for (const int64_t count : {int64_t{1}, int64_t{1024}, int64_t{1025}, int64_t{(5 << 20) + 3}}) {
    at::Tensor tensor = pinned_empty({count, 1}, at::kFloat, plugin, 3);
    ASSERT_EQ(locked.bytes.size(), 1);
    const auto [begin, bytes] = *locked.bytes.begin();
    EXPECT_EQ(begin, tensor.data_ptr());
    EXPECT_EQ(bytes % page, 0);
    EXPECT_GE(bytes, tensor.nbytes());
    EXPECT_LT(bytes - tensor.nbytes(), page);
    const size_t alignment = bytes < (2 << 20) ? page : 2 << 20;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(begin) % alignment, 0);
    EXPECT_EQ(locked.device, 3);
    EXPECT_EQ(tensor.fill_(2).sum().item<float>(), 2.0F * static_cast<float>(count));
    const at::Tensor view = tensor.view(-1);
    tensor.reset();
    EXPECT_EQ(locked.bytes.size(), 1);  // a view still looks at it
  }
  EXPECT_EQ(locked.num_registered, 4);
  EXPECT_EQ(locked.num_unregistered, 4);
  EXPECT_TRUE(locked.bytes.empty());
}

TEST(PinnedMemory, NothingIsNotLocked) {
  const GpuPlugin plugin = fake_plugin();
  EXPECT_EQ(pinned_empty({0, 7}, at::kFloat, plugin, 0).numel(), 0);
  EXPECT_EQ(locked.num_registered, 0);
}

TEST(PinnedMemory, StaysWhereTheDeviceMayStillUseIt) {
  const GpuPlugin plugin = fake_plugin();
  void* freed = nullptr;
  void* kept = nullptr;
  freed = pinned_empty({5}, at::kFloat, plugin, 0).data_ptr();
  EXPECT_FALSE(is_mapped(freed));
  locked.lets_go = false;
  kept = pinned_empty({5}, at::kFloat, plugin, 0).data_ptr();
  EXPECT_TRUE(is_mapped(kept));
  locked.lets_go = true;
  locked.num_unregistered = 0;
  try {
    const at::Tensor tensor = pinned_empty({5}, at::kFloat, plugin, 0);
    kept = tensor.data_ptr();
    throw std::runtime_error("a rank is lost");
  } catch (const std::runtime_error&) {
  }
  EXPECT_EQ(locked.num_unregistered, 0);
  EXPECT_TRUE(is_mapped(kept));
}

TEST(PinnedMemory, IsGivenBackWhereItCannotBeLocked) {
  GpuPlugin plugin = fake_plugin();
  plugin.register_host = [](void* begin, size_t bytes, int) {
    locked.bytes.emplace(begin, bytes);
    throw std::runtime_error("no");
  };
  EXPECT_THROW(pinned_empty({5}, at::kFloat, plugin, 0), std::runtime_error);
  EXPECT_FALSE(is_mapped(locked.bytes.begin()->first));
  EXPECT_EQ(locked.num_unregistered, 0);
}

TEST(HostMemory, OfTheCpuIsOrdinary) {
  const at::Tensor tensor = host_empty({3, 4}, at::kHalf, at::kCPU);
  EXPECT_EQ(tensor.sizes(), at::IntArrayRef({3, 4}));
  EXPECT_EQ(tensor.scalar_type(), at::kHalf);
  EXPECT_TRUE(tensor.storage().resizable());  // ATen's own, not a blob
}

}  // namespace
}  // namespace tessera
