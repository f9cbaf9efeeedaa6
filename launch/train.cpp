#include "trainer/train.h"

#include "launch/commands.h"
#include "launch/plan_text.h"
#include "launch/signals.h"
#include "trainer/catalog.h"
#include "trainer/device.h"

namespace tessera {
namespace {

/// What `tessera validate` tells of these ranks.
void add_plan(const Recipe& recipe, const World& world, int64_t vocab_size, Table& table) {
  const ModelFacts facts = look_at_model(recipe, vocab_size);
  const int hosts = std::max(1, world.size() / world.local_size());
  add_plan_rows(make_forecast(facts, make_layout(recipe, facts, world.size(), hosts),
                              usual_machine(recipe, world.local_size())),
                table);
}

/// Trains; memory that cannot be had is something a user can do something about.
Ending train_in_memory(const Recipe& recipe, World& world) {
  const auto out_of_memory = [](const std::string& what) {
    return Error(
        "out of memory: " + what +
        "\nvalid: a smaller train.micro_batch, train.recompute=blocks, or more ranks with parallel.shard, "
        "tensor or pipeline; `tessera validate RECIPE --ranks N` tells what each rank needs");
  };
  try {
    return train(recipe, world, {stop_signal, [&](const Recipe& settled, int64_t vocab_size, Table& table) {
                                   add_plan(settled, world, vocab_size, table);
                                 }});
  } catch (const c10::OutOfMemoryError& error) {
    throw out_of_memory(error.what_without_backtrace());
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    if (what.find("can't allocate memory") == std::string::npos) throw;
    throw out_of_memory(what);
  } catch (const std::bad_alloc&) {
    throw out_of_memory("the C++ library could not get any");
  } catch (const std::exception& error) {  // oneDNN's: its products ask for room of their own
    if (error.what() != std::string("could not execute a primitive")) throw;
    throw out_of_memory("oneDNN could not get any");
  }
}

int run_train(const std::string& path, const std::vector<std::string>& overrides) {
  const Recipe recipe = read_recipe(path, overrides, catalog());  // before MPI starts
  check_ranks(recipe, launch_info().size);
  catch_stop_signals();
  return run_job([&](World& world) {
    world.set_threads();
    prepare_host_memory();
    const Ending ending = train_in_memory(recipe, world);
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
