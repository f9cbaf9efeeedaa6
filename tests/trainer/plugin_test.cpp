#include "parallel/plugin.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "parallel/world.h"

namespace tessera {
namespace {

// Here, not with parallel's tests: the plug-in's kernels register themselves with the trainer's.
TEST(GpuPlugin, loads_where_it_was_built_and_registers_everything) {
  const auto path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "libtessera_cuda.so";
  if (!std::filesystem::exists(path)) GTEST_SKIP() << "built without GPU support";
  EXPECT_EQ(World().size(), 1);  // the plug-in takes symbols from the program: link them into this one
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto enter = reinterpret_cast<void (*)(GpuPlugin&)>(dlsym(library, "tessera_cuda_register"));
  ASSERT_NE(enter, nullptr);
  GpuPlugin plugin;
  enter(plugin);
  ASSERT_TRUE(plugin.device_count && plugin.device_name && plugin.set_device && plugin.memory &&
              plugin.make_transport);
  EXPECT_GE(plugin.device_count(), 0);
}

}  // namespace
}  // namespace tessera
