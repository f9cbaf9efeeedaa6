#include "trainer/train.h"

#include "launch/commands.h"
#include "launch/signals.h"
#include "trainer/catalog.h"
#include "trainer/device.h"

namespace tessera {
namespace {

/// What validate plans and the loop cannot do yet.
void check_available(const Recipe& recipe) {
  const std::pair<const char*, int64_t> axes[] = {{"pipeline", recipe.parallel.pipeline},
                                                  {"context", recipe.parallel.context}};
  for (const auto& axis : axes) {
    if (axis.second == 1) continue;
    throw recipe.error(std::string("parallel.") + axis.first,
                       std::to_string(axis.second) + " is not available in this version; valid: 1");
  }
}

int run_train(const std::string& path, const std::vector<std::string>& overrides) {
  const Recipe recipe = read_recipe(path, overrides, catalog());  // before MPI starts
  check_ranks(recipe, launch_info().size);
  check_available(recipe);
  catch_stop_signals();
  return run_job([&](World& world) {
    world.set_threads();
    prepare_host_memory();
    const Ending ending = train(recipe, world, stop_signal);
    if (ending.signal == 0) return 0;
    if (world.rank() == 0) {
      std::fprintf(stderr,
                   "stopped by %s after step %lld, which is saved; the same command goes on from there\n",
                   signal_name(ending.signal), static_cast<long long>(ending.step));
    }
    return 128 + ending.signal;
  });
}

}  // namespace

std::function<int()> declare_train(CLI::App& app) {
  struct Options {
    std::string recipe;
    std::vector<std::string> overrides;
  };
  auto options = std::make_shared<Options>();
  app.add_option("recipe", options->recipe, "The recipe's file")->required();
  app.add_option("overrides", options->overrides, "Changes to the recipe: key.sub=value");
  return [options] { return run_train(options->recipe, options->overrides); };
}

}  // namespace tessera
