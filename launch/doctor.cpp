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

/// Seconds of work that all ranks begin together, as in training: processors may be less than they seem. The
/// best of some rounds, after one that does not count.
template <class Work>
double seconds_together(const Communicator& ranks, int rounds, const Work& work) {
  double best = 1e9;
  for (int i = 0; i <= rounds; ++i) {
    ranks.barrier();
    const auto start = DoctorClock::now();
    work();
    if (i > 0) best = std::min(best, elapsed(start));
  }
  return best;
}

double product_flops(const Communicator& ranks, at::Device device, at::ScalarType type) {
  const at::NoGradGuard no_grad;
  const int64_t size = device.is_cuda() ? 8192 : 1024;
  // Random numbers: a GPU that multiplies ones needs less power, and runs faster than it will on real data.
  const at::Tensor a = at::randn({size, size}, at::TensorOptions(device)).to(type), b = at::randn_like(a);
  at::Tensor c = at::ones({1}, a.options());
  const double seconds = seconds_together(ranks, 5, [&] {
    c = multiply_transposed(a, b);
    settle(c);
  });
  return 2 * static_cast<double>(size * size * size) / seconds;
}

double copy_bandwidth(const Communicator& ranks, at::Device device) {
  const int64_t count = device.is_cuda() ? 256 << 20 : 32 << 20;
  const at::Tensor from = at::ones({count}, at::TensorOptions(device).dtype(at::kFloat)),
                   to = at::empty_like(from);
  const double seconds = seconds_together(ranks, 5, [&] {
    to.copy_(from);
    settle(to);
  });
  return 8 * static_cast<double>(count) / seconds;
}

/// What a block's forward and backward take where its products take nothing: launches and small tensors.
double small_operations(const Communicator& ranks, at::Device device) {
  constexpr int operations = 60;  // of a block
  const at::Tensor x = at::ones({64}, at::TensorOptions(device).dtype(at::kFloat));
  return seconds_together(ranks, 5, [&] {
    for (int i = 0; i < operations; ++i) x.add_(1);
    settle(x);
  });
}

/// The way between this rank and `partner`, where all pairs use theirs at once and in both directions, as in
/// collectives. Called by all; below 0: this rank has none, and gets nothing sensible.
LinkFigures measure_link(const Communicator& ranks, int partner) {
  const auto way = [&](int64_t bytes, int rounds) {
    const auto options = at::TensorOptions(ranks.device()).dtype(at::kByte);
    const at::Tensor mine = at::zeros({bytes}, options), theirs = at::zeros({bytes}, options);
    return seconds_together(ranks, rounds, [&] {
      if (partner < 0) return;
      Work sent, received;
      if (ranks.rank() < partner) sent = ranks.send_async(mine, partner);
      received = ranks.receive_async(theirs, partner);
      if (ranks.rank() > partner) sent = ranks.send_async(mine, partner);
      sent.wait();
      received.wait();
      settle(theirs);
    });
  };
  constexpr int64_t large = 64 << 20;
  const double latency = way(8, 50);
  return {latency, static_cast<double>(large) / std::max(1e-9, way(large, 6) - latency)};
}

/// How much of a sum over all ranks hides beside products that take about as long.
double measure_overlap(const Communicator& ranks) {
  const at::NoGradGuard no_grad;
  const at::TensorOptions options(ranks.device());
  const at::Tensor message = at::zeros({4 << 20}, options), a = at::ones({1024, 1024}, options);
  at::Tensor product;
  const double sum = seconds_together(ranks, 6, [&] {
    ranks.all_reduce(message);
    settle(message);
  });
  const auto multiply = [&](int times) {
    for (int i = 0; i < times; ++i) product = multiply_transposed(a, a);
  };
  const double one = seconds_together(ranks, 6, [&] {
    multiply(1);
    settle(product);
  });
  // All ranks must agree on the number.
  const at::Tensor longest = at::full({1}, sum / one, options);
  ranks.all_reduce(longest, Reduction::max);
  const int times = std::clamp(static_cast<int>(longest.item<float>()), 1, 1000);
  const double products = seconds_together(ranks, 6, [&] {
    multiply(times);
    settle(product);
  });
  const double both = seconds_together(ranks, 6, [&] {
    const Work reduced = ranks.all_reduce_async(message);
    multiply(times);
    settle(product);
    reduced.wait();
    settle(message);
  });
  return std::clamp((sum + products - both) / std::min(sum, products), 0.01, 1.0);
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
  const std::string why = unused_gpu().empty() ? "" : ": " + unused_gpu();
  print_line("GPUs", gpus == 0 ? "none that this program can use" + why
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
  if (inside || between)
    print_line("overlap", fmt::format("{:.0f} % of a sum hides beside products", 100 * machine.overlap));
}

struct DoctorOptions {
  std::string save;
  DeviceChoice device = DeviceChoice::automatic;
};

/// Called by all ranks: products are measured on all at once, as they run in training.
MachineFigures measure(const World& world, const Recipe& recipe) {
  const at::Device device = choose_device({recipe.train.device}, world.local_rank());
  MachineFigures machine;  // rank 0's is told: others would open a context on its GPU to learn its memory
  if (world.rank() == 0) machine = usual_machine(recipe, world.local_size());
  machine.source = fmt::format("measured by tessera doctor on {} ranks", world.size());
  const Communicator& hosts = world.communicator();
  machine.flops_fp32 = product_flops(hosts, device, at::kFloat);
  machine.flops_16_bit = product_flops(hosts, device, at::kBFloat16);
  machine.memory_bandwidth = copy_bandwidth(hosts, device);
  machine.block_overhead = small_operations(hosts, device);
  const Communicator ranks =
      device.is_cuda() && world.size() > 1 ? world.gpu_communicator(device.index()) : hosts;
  const int local = world.local_size(), place = world.rank() % local, host = world.rank() / local;
  const auto partner = [](int number, int count) { return (number ^ 1) < count ? number ^ 1 : -1; };
  if (local > 1) {
    const int other = partner(place, local);
    machine.inside = measure_link(ranks, other < 0 ? -1 : host * local + other);
  }
  if (world.size() > local) {
    const int other = partner(host, world.size() / local);
    machine.between = measure_link(ranks, other < 0 ? -1 : other * local + place);
  }
  if (world.size() > 1) machine.overlap = measure_overlap(ranks);
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
