// Times all-reduces between ranks, alone and while the main thread computes.
// usage: mpirun -n 2 build/release/tool_bandwidth
#include <ATen/Functions.h>
#include <fmt/format.h>

#include <chrono>

#include "parallel/world.h"

namespace {
double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double best_of(int times, const tessera::Communicator& ranks, const std::function<void()>& body) {
  double best = 1e9;
  for (int i = 0; i < times; ++i) {
    ranks.barrier();
    const double start = now();
    body();
    best = std::min(best, now() - start);
  }
  return best;
}
}  // namespace

int main() {
  return tessera::run_job([](tessera::World& world) {
    const int threads = world.set_threads();
    const auto& ranks = world.communicator();
    const bool prints = world.rank() == 0;
    if (prints)
      fmt::print("{} ranks, {} threads each\n{:>10} {:>10} {:>10} {:>10}\n", world.size(), threads, "type",
                 "MiB", "ms", "GB/s");
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      for (const int64_t count : {1000, 16000, 256000, 4096000, 16384000}) {
        const at::Tensor tensor = at::ones({count}, type);
        const double seconds = best_of(10, ranks, [&] { ranks.all_reduce(tensor, tessera::Reduction::max); });
        const auto bytes = static_cast<double>(tensor.nbytes());
        if (prints) {
          fmt::print("{:>10} {:>10.2f} {:>10.3f} {:>10.2f}\n", c10::toString(type), bytes / (1 << 20),
                     seconds * 1e3, bytes / seconds * 1e-9);
        }
      }
    }
    const at::Tensor message = at::ones({4096000});
    const at::Tensor a = at::ones({700, 700});
    const auto compute = [&] {
      for (int i = 0; i < 20; ++i) at::mm(a, a);
    };
    const double alone = best_of(5, ranks, compute);
    const double reduce = best_of(5, ranks, [&] { ranks.all_reduce(message); });
    const double both = best_of(5, ranks, [&] {
      const tessera::Work work = ranks.all_reduce_async(message);
      compute();
      work.wait();
    });
    if (prints) {
      fmt::print("computing {:.1f} ms, an all-reduce of 16 MiB {:.1f} ms, both at once {:.1f} ms\n",
                 alone * 1e3, reduce * 1e3, both * 1e3);
    }
    return 0;
  });
}
