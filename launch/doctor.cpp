// What this machine offers: what is installed, and, measured, what a plan's figures should be.
#include <fmt/format.h>
#include <mpi.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <fstream>

#include "launch/commands.h"
#include "launch/machine.h"
#include "launch/plan_text.h"
#include "parallel/plugin.h"
#include "parallel/world.h"
#include "trainer/device.h"
#include "trainer/kernels/kernels.h"

namespace tessera {
namespace {

using DoctorClock = std::chrono::steady_clock;

double elapsed(DoctorClock::time_point start) {
  return std::chrono::duration<double>(DoctorClock::now() - start).count();
}

/// Waits for a GPU by reading a number back.
void settle(const at::Tensor& tensor) {
  if (tensor.is_cuda()) tensor.flatten()[0].item();
}

/// Seconds of one call: the best of several, after one that does not count.
template <class Work>
double seconds_of(const at::Tensor& result, const Work& work) {
  work();
  settle(result);
  double best = 1e9;
  for (int i = 0; i < 5; ++i) {
    const auto start = DoctorClock::now();
    work();
    settle(result);
    best = std::min(best, elapsed(start));
  }
  return best;
}

double product_flops(at::Device device, at::ScalarType type) {
  const at::NoGradGuard no_grad;
  const int64_t size = device.is_cuda() ? 8192 : 1024;
  const at::Tensor a = at::ones({size, size}, at::TensorOptions(device).dtype(type)), b = at::ones_like(a);
  at::Tensor c = at::ones({1}, a.options());
  const double seconds = seconds_of(c, [&] {
    c = multiply_transposed(a, b);
    settle(c);
  });
  return 2 * static_cast<double>(size * size * size) / seconds;
}

double copy_bandwidth(at::Device device) {
  const int64_t count = device.is_cuda() ? 256 << 20 : 32 << 20;
  const at::Tensor from = at::ones({count}, at::TensorOptions(device).dtype(at::kFloat)),
                   to = at::empty_like(from);
  return 8 * static_cast<double>(count) / seconds_of(to, [&] { to.copy_(from); });
}

/// What a block's forward and backward take where its products take nothing: launches and small tensors.
double small_operations(at::Device device) {
  constexpr int operations = 60;  // of a block
  const at::Tensor x = at::ones({64}, at::TensorOptions(device).dtype(at::kFloat));
  return seconds_of(x, [&] {
    for (int i = 0; i < operations; ++i) x.add_(1);
  });
}

/// The way from rank 0 to `peer` and back, halved. Called by all; others get zeros.
LinkFigures measure_link(const Communicator& ranks, int peer) {
  const auto way = [&](int64_t bytes, int rounds) {
    const at::Tensor message = at::zeros({bytes}, at::TensorOptions(ranks.device()).dtype(at::kByte));
    double best = 1e9;
    for (int i = 0; i < rounds; ++i) {
      ranks.barrier();
      const auto start = DoctorClock::now();
      if (ranks.rank() == 0) {
        ranks.send(message, peer);
        ranks.receive(message, peer);
      } else if (ranks.rank() == peer) {
        ranks.receive(message, 0);
        ranks.send(message, 0);
      }
      settle(message);
      best = std::min(best, elapsed(start) / 2);
    }
    return best;
  };
  constexpr int64_t large = 64 << 20;
  const double latency = way(8, 50);
  return {latency, static_cast<double>(large) / std::max(1e-9, way(large, 6) - latency)};
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string version(text, static_cast<size_t>(length));
  return version.substr(0, version.find_first_of(",\n"));
}

void print_installed(const World& world, int threads) {
  print_line("tessera", fmt::format("{}, LibTorch {}, {}", TESSERA_VERSION, TORCH_VERSION, mpi_version()));
  print_line("processor", fmt::format("{}, {} threads for each rank", processor_name(), threads));
  print_line("memory", bytes_text(host_memory()) + " on this host");
  const GpuPlugin* plugin = find_gpu_plugin();
  const int gpus = plugin ? plugin->device_count() : 0;
  print_line("GPUs", gpus == 0 ? "none that this program can use"
                               : fmt::format("{} x {}, {} each, with NCCL", gpus, plugin->device_name(0),
                                             bytes_text(static_cast<double>(plugin->memory(0).total))));
  const int hosts = world.size() / std::max(1, world.local_size());
  print_line("ranks", world.size() == 1 ? "1 (mpirun -n 2 tessera doctor measures messages too)"
                                        : fmt::format("{} on {} host{}, started by {}", world.size(), hosts,
                                                      hosts == 1 ? "" : "s", world.launch().launcher));
}

void print_measured(const MachineFigures& machine, bool inside, bool between) {
  print_line("products", fmt::format("{:.4g} GFLOP/s in fp32, {:.4g} in bf16", machine.flops_fp32 / 1e9,
                                     machine.flops_16_bit / 1e9));
  print_line("copies", bytes_text(machine.memory_bandwidth) + "/s read and written");
  const auto link = [](const char* name, const LinkFigures& figures, bool measured) {
    print_line(name,
               measured ? fmt::format("{:.1f} us, {}/s", figures.latency * 1e6, bytes_text(figures.bandwidth))
                        : "not measured: needs two ranks there; the usual figures are taken");
  };
  link("in a host", machine.inside, inside);
  link("to others", machine.between, between);
}

struct DoctorOptions {
  std::string save;
  DeviceChoice device = DeviceChoice::automatic;
};

/// Called by all ranks: products are measured on all at once, as they run in training.
MachineFigures measure(const World& world, const Recipe& recipe) {
  const at::Device device = choose_device(recipe, world);
  MachineFigures machine = usual_machine(recipe, world.local_size());
  machine.source = fmt::format("measured by tessera doctor on {} ranks", world.size());
  world.communicator().barrier();
  machine.flops_fp32 = product_flops(device, at::kFloat);
  machine.flops_16_bit = product_flops(device, at::kBFloat16);
  machine.memory_bandwidth = copy_bandwidth(device);
  machine.block_overhead = small_operations(device);
  const Communicator ranks =
      device.is_cuda() && world.size() > 1 ? world.gpu_communicator(device.index()) : world.communicator();
  if (world.local_size() > 1) machine.inside = measure_link(ranks, 1);
  if (world.size() > world.local_size()) machine.between = measure_link(ranks, world.local_size());
  return machine;
}

int run_doctor(const DoctorOptions& options) {
  return run_job([&](World& world) {
    const int threads = world.set_threads();
    if (world.rank() == 0) print_installed(world, threads);
    Recipe recipe;
    recipe.train.device = find_gpu_plugin() ? options.device : DeviceChoice::cpu;
    const MachineFigures machine = measure(world, recipe);
    world.communicator().barrier();
    if (world.rank() != 0) return 0;
    print_measured(machine, world.local_size() > 1, world.size() > world.local_size());
    if (options.save.empty()) return 0;
    write_machine(options.save, machine);
    print_line("saved", options.save + " (tessera validate RECIPE --machine " + options.save + ")");
    return 0;
  });
}

}  // namespace

std::function<int()> declare_doctor(CLI::App& app) {
  auto options = std::make_shared<DoctorOptions>();
  app.add_option("--save", options->save, "Write the figures to this file, for validate --machine");
  app.add_flag_callback(
      "--cpu", [options] { options->device = DeviceChoice::cpu; },
      "Measure the CPU where there are GPUs too");
  return [options] { return run_doctor(*options); };
}

}  // namespace tessera
