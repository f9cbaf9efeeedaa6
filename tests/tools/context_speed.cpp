// How much ranks gain by dividing a sequence:
// OMP_NUM_THREADS=1 mpirun --bind-to none -n 2 build/release/tool_context_speed [sequence]
#include <torch/torch.h>

#include "parallel/context_attention.h"
#include "parallel/world.h"

namespace tessera {
namespace {
constexpr int num_repeats = 6;

/// Shortest of some repeats, in ms.
struct Timing {
  double forward = 1e9, backward = 1e9, processor = 1e9;
};

double wall_ms() {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

/// Of this thread, which does not count waiting: what it computes, whatever else the machine does.
double processor_ms() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) * 1e-6;
}

struct Way {
  Communicator group;
  ContextAttentionOptions options;
};

/// Forward and backward of [1, 4, sequence, 64].
Timing time_attention(const Communicator& all, int64_t sequence, at::ScalarType type, const Way& way) {
  Timing best;
  for (int i = 0; i < num_repeats; ++i) {
    std::vector<at::Tensor> inputs;
    for (int j = 0; j < 3; ++j)
      inputs.push_back(torch::randn({1, 4, sequence, 64}).to(type).requires_grad_());
    const at::Tensor gradient = torch::randn({1, 4, sequence, 64}).to(type);
    all.barrier();
    const double processor = processor_ms(), begin = wall_ms();
    const at::Tensor output = context_attention(inputs[0], inputs[1], inputs[2], way.group, way.options);
    const double middle = wall_ms();
    output.backward(gradient);
    best.forward = std::min(best.forward, middle - begin);
    best.backward = std::min(best.backward, wall_ms() - middle);
    best.processor = std::min(best.processor, processor_ms() - processor);
  }
  return best;
}

void report(const Communicator& world, const char* what, const Timing& mine, int ranks) {
  const auto all = at::empty({world.size(), 3}, at::kDouble);
  world.all_gather(all, at::tensor({mine.forward, mine.backward, mine.processor}, at::kDouble).view({1, 3}));
  if (world.rank() != 0) return;
  printf("  %-12s ms forward, backward (processor, both):", what);
  for (int i = 0; i < ranks; ++i) {
    const auto row = all.accessor<double, 2>()[i];
    printf("  %.0f, %.0f (%.0f)", row[0], row[1], row[2]);
  }
  printf("\n");
}

void compare(const World& world, int64_t sequence, at::ScalarType type, bool causal) {
  if (world.rank() == 0) printf("%s%s\n", c10::toString(type), causal ? " causal" : "");
  const Communicator& all = world.communicator();
  const ContextAttentionOptions ring{ContextMethod::ring, causal, {}, {}};
  const ContextAttentionOptions ulysses{ContextMethod::ulysses, causal, {}, {}};
  // The whole on rank 0 while the others wait, and on every rank at once: they share memory and caches.
  Timing whole;
  if (world.rank() == 0) whole = time_attention(all, sequence, type, {Communicator(), ring});
  for (int i = 0; i < num_repeats && world.rank() != 0; ++i) all.barrier();
  report(all, "one whole", whole, 1);
  report(all, "whole each", time_attention(all, sequence, type, {Communicator(), ring}), world.size());
  report(all, "ring", time_attention(all, sequence / world.size(), type, {all, ring}), world.size());
  report(all, "ulysses", time_attention(all, sequence / world.size(), type, {all, ulysses}), world.size());
}
}  // namespace
}  // namespace tessera

int main(int argc, char** argv) {
  const int64_t sequence = argc > 1 ? std::stoll(argv[1]) : 4096;
  return tessera::run_job([sequence](tessera::World& world) {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      for (const bool causal : {true, false}) tessera::compare(world, sequence, type, causal);
    }
    return 0;
  });
}
