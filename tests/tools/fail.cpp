// Ranks that misbehave on purpose, for tests of how a job ends.
// usage: tool_fail throw|thread|error|hang|pid RANK [gpu|stuck]
// Every rank steps through all-reduces; in step 3 the given rank throws, throws in a thread of its own, finds
// a user's mistake, hangs, or tells its process id and goes on until somebody kills it. The all-reduces are
// NCCL's, or those of a group that does not come to its end alone.
#include <unistd.h>

#include <iostream>
#include <thread>

#include "parallel/plugin.h"
#include "parallel/world.h"
#include "recipes/error.h"
#include "tests/ranks/delayed_transport.h"

namespace {
void sleep_for_ever() {
  for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
}

/// As NCCL's groups, whose end waits for all ranks.
struct StuckTransport : tessera::DelayedTransport {
  using DelayedTransport::DelayedTransport;
  ~StuckTransport() override { sleep_for_ever(); }
};

tessera::Communicator ranks_of(const tessera::World& world, const std::string& kind) {
  if (kind.empty()) return world.communicator();
  if (kind == "stuck") {
    return tessera::Communicator(
        std::make_shared<StuckTransport>(world.communicator(), tessera::DelayedTransport::Network()));
  }
  return world.gpu_communicator(
      tessera::device_for(world.local_rank(), tessera::gpu_plugin().device_count()));
}

void throw_one() { throw std::runtime_error("a broken invariant"); }

void misbehave(const std::string& how) {
  if (how == "throw") throw_one();
  if (how == "thread") std::thread(throw_one).join();
  if (how == "error") throw tessera::Error("there is no file data/none.h5");
  if (how == "hang") sleep_for_ever();
  std::cout << "pid " << getpid() << std::endl;
}
}  // namespace

int main(int argc, char** argv) {
  const std::string how = argc > 1 ? argv[1] : "";
  const int who = argc > 2 ? std::stoi(argv[2]) : -1;  // -1: all
  return tessera::run_job([&](tessera::World& world) {
    const tessera::Communicator ranks = ranks_of(world, argc > 3 ? argv[3] : "");
    for (int step = 1; step <= 6000; ++step) {
      world.set_step(step);
      const at::Tensor tensor = at::ones({1000}, at::TensorOptions().device(ranks.device()));
      ranks.all_reduce(tensor);
      tensor.cpu();  // waits for a GPU
      if (step == 3 && (who < 0 || who == world.rank())) misbehave(how);
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return 0;
  });
}
