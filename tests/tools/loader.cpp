// How fast the data of a recipe can be read, shuffled, masked and collated, with no training to wait for it.
// usage: tool_loader SECONDS RECIPE [key.sub=value …]
#include <chrono>
#include <cstdio>

#include "trainer/catalog.h"
#include "trainer/session.h"

int main(int argc, char** argv) {
  using namespace tessera;
  using Clock = std::chrono::steady_clock;
  TORCH_CHECK(argc >= 3, "usage: tool_loader SECONDS RECIPE [key.sub=value …]");
  const double seconds = std::stod(argv[1]);
  return run_job([&](World& world) {
    world.set_threads();
    Session session(read_recipe(argv[2], {argv + 3, argv + argc}, catalog()), world);
    session.resume();
    for (int i = 0; i < 20; ++i) session.loader->next();
    int64_t tokens = 0;
    const auto start = Clock::now();
    std::chrono::duration<double> took{};
    for (; took.count() < seconds; took = Clock::now() - start) {
      for (const Batch& batch : session.loader->next()) tokens += batch.num_tokens;
    }
    std::printf("%.0f tok/s\n", static_cast<double>(tokens) / took.count());
    return 0;
  });
}
