// Ranks that misbehave on purpose, for tests of how a job ends. usage: tool_fail throw|error|hang|pid RANK
// [gpu] Every rank steps through all-reduces; in step 3 the given rank throws, finds a user's mistake, hangs,
// or tells its process id and goes on until somebody kills it.
#include <unistd.h>

#include <iostream>
#include <thread>

#include "parallel/plugin.h"
#include "parallel/world.h"
#include "recipes/error.h"

namespace {
void misbehave(const std::string& how) {
  if (how == "throw") throw std::runtime_error("a broken invariant");
  if (how == "error") throw tessera::Error("there is no file data/none.h5");
  while (how == "hang") std::this_thread::sleep_for(std::chrono::seconds(1));
  std::cout << "pid " << getpid() << std::endl;
}
}  // namespace

int main(int argc, char** argv) {
  const std::string how = argc > 1 ? argv[1] : "";
  const int who = argc > 2 ? std::stoi(argv[2]) : -1;  // -1: all
  return tessera::run_job([&](tessera::World& world) {
    const tessera::Communicator ranks = argc > 3
                                            ? world.gpu_communicator(tessera::device_for(
                                                  world.local_rank(), tessera::gpu_plugin().device_count()))
                                            : world.communicator();
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
