#include "parallel/plugin.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <filesystem>

#include "parallel/watchdog.h"
#include "recipes/error.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

struct Found {
  std::unique_ptr<GpuPlugin> plugin;
  std::string why_not;
};

// The plug-in takes it from the program, into which a linker puts only what somebody names.
[[gnu::used]] void (Watchdog::*const kept_for_plugin)() const = &Watchdog::throw_error;

// The driver's device file, also under Windows' Linux: loading CUDA to learn that there is no GPU costs 0.1
// s.
bool machine_shows_gpu() { return fs::exists("/dev/nvidiactl") || fs::exists("/dev/dxg"); }

Found load() {
  if (!machine_shows_gpu()) return {nullptr, "this machine shows no NVIDIA GPU (there is no /dev/nvidiactl)"};
  const fs::path folder = fs::read_symlink("/proc/self/exe").parent_path();
  for (const fs::path& path : {folder / "libtessera_cuda.so", folder / "../lib/libtessera_cuda.so"}) {
    if (!fs::exists(path)) continue;
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr)
      return {nullptr, fmt::format("{} cannot be loaded: {}", path.string(), dlerror())};
    const auto enter = reinterpret_cast<void (*)(GpuPlugin&)>(dlsym(library, "tessera_cuda_register"));
    if (enter == nullptr) return {nullptr, fmt::format("{} belongs to another version", path.string())};
    auto plugin = std::make_unique<GpuPlugin>();
    enter(*plugin);
    if (plugin->device_count() == 0)
      return {nullptr, "CUDA sees no GPU (CUDA_VISIBLE_DEVICES may hide them)"};
    return {std::move(plugin), ""};
  }
  return {nullptr,
          fmt::format("this program was built without GPU support: no libtessera_cuda.so in {} or ../lib; "
                      "install a CUDA toolkit (launch/setup --cuda) and build again",
                      folder.string())};
}

const Found& found() {
  static const Found result = load();
  return result;
}
}  // namespace

const GpuPlugin* find_gpu_plugin() { return found().plugin.get(); }

const GpuPlugin& gpu_plugin() {
  if (!found().plugin) throw Error(fmt::format("no GPU can be used: {}", found().why_not));
  return *found().plugin;
}

int device_for(int local_rank, int device_count) { return local_rank % device_count; }

}  // namespace tessera
