#include "parallel/plugin.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "parallel/watchdog.h"
#include "recipes/error.h"

namespace tessera {
namespace {
namespace fs = std::filesystem;

// CUDA 13 needs the driver 580 (release notes of the toolkit).
constexpr int oldest_driver = 580;

// The plug-in takes it from the program, into which a linker puts only what somebody names.
[[gnu::used]] void (Watchdog::*const kept_for_plugin)() const = &Watchdog::throw_error;

// "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul …"
std::string driver_version() {
  std::ifstream file("/proc/driver/nvidia/version");
  for (std::string word; file >> word;) {
    if (std::isdigit(static_cast<unsigned char>(word.front())) && word.find('.') != std::string::npos)
      return word;
  }
  return "";
}

GpuMachine this_machine() {
  GpuMachine machine;
  // The driver's device file, also under Windows' Linux: loading CUDA to learn that there is no GPU costs 0.1
  // s.
  machine.shows_gpu = fs::exists("/dev/nvidiactl") || fs::exists("/dev/dxg");
  if (const char* visible = std::getenv("CUDA_VISIBLE_DEVICES")) machine.visible_devices = visible;
  machine.driver = driver_version();
  const fs::path folder = fs::read_symlink("/proc/self/exe").parent_path();
  machine.folders = {folder, folder / "../lib"};
  return machine;
}

/// CUDA takes the numbers up to the first that is none.
bool hides_all(const GpuMachine& machine) {
  return machine.visible_devices &&
         (machine.visible_devices->empty() || machine.visible_devices->starts_with("-1"));
}

GpuSearch load_plugin(const fs::path& path, const GpuMachine& machine) {
  const auto broken = [](const std::string& why) { return GpuSearch{nullptr, why, true}; };
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (library == nullptr) {
    return broken(fmt::format("{} cannot be loaded: {}; build it again (launch/build) on this machine",
                              path.string(), dlerror()));
  }
  const auto enter = reinterpret_cast<void (*)(GpuPlugin&)>(dlsym(library, "tessera_cuda_register"));
  if (enter == nullptr)
    return broken(
        fmt::format("{} belongs to another version; build both again (launch/build)", path.string()));
  auto plugin = std::make_unique<GpuPlugin>();
  enter(*plugin);
  if (plugin->device_count() == 0) return broken(why_no_device(machine));
  return {std::move(plugin), "", false};
}

const GpuSearch& found() {
  static const GpuSearch result = search_gpu(this_machine());
  return result;
}
}  // namespace

GpuSearch search_gpu(const GpuMachine& machine) {
  if (!machine.shows_gpu)
    return {nullptr, "this machine shows no NVIDIA GPU (there is no /dev/nvidiactl)", false};
  if (hides_all(machine)) {
    return {nullptr, fmt::format("CUDA_VISIBLE_DEVICES='{}' hides all of them", *machine.visible_devices),
            false};
  }
  for (const fs::path& folder : machine.folders) {
    if (fs::exists(folder / "libtessera_cuda.so")) return load_plugin(folder / "libtessera_cuda.so", machine);
  }
  return {nullptr,
          fmt::format("this program was built without GPU support: no libtessera_cuda.so in {} or ../lib; "
                      "install a CUDA toolkit (launch/setup --cuda) and build again (launch/build)",
                      machine.folders.front().string()),
          true};
}

std::string why_no_device(const GpuMachine& machine) {
  if (machine.visible_devices) {
    return fmt::format(
        "CUDA sees no GPU: CUDA_VISIBLE_DEVICES='{}' names none of this machine's (nvidia-smi -L "
        "lists them)",
        *machine.visible_devices);
  }
  if (!machine.driver.empty() && std::atoi(machine.driver.c_str()) < oldest_driver) {
    return fmt::format("CUDA sees no GPU: the driver {} is too old for CUDA 13; install {} or newer",
                       machine.driver, oldest_driver);
  }
  return "CUDA sees no GPU: nvidia-smi should show them and the driver's state, and this user must be "
         "allowed to "
         "open /dev/nvidia*";
}

const GpuPlugin* find_gpu_plugin() { return found().plugin.get(); }

const GpuPlugin& gpu_plugin() {
  if (!found().plugin) throw Error(fmt::format("no GPU can be used: {}", found().why_not));
  return *found().plugin;
}

const std::string& unused_gpu() {
  static const std::string none;
  return found().a_fault ? found().why_not : none;
}

int device_for(int local_rank, int device_count) { return local_rank % device_count; }

}  // namespace tessera
