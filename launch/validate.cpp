// What a recipe comes to, told before anything is spent on it: no MPI, no GPU, no memory for weights.
#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "datasets/open.h"
#include "launch/commands.h"
#include "launch/plan_text.h"
#include "parallel/plugin.h"
#include "recipes/parallel_checks.h"
#include "trainer/catalog.h"
#include "trainer/objectives/objectives.h"
#include "trainer/training_data.h"

namespace tessera {
namespace {

struct ValidateArguments {
  std::string recipe;
  int ranks = 1;
  int hosts = 1;
  bool suggest = false;
  bool json = false;
  double memory = 0;  // GB
  std::string machine;
  std::vector<std::string> overrides;
};

/// The training data, where it is there already.
struct Data {
  std::string missing;     ///< the first file that is not there
  int64_t vocab_size = 0;  ///< 0: not known yet
  int64_t epoch_size = 0;  ///< in samples
};

/// Settles what the recipe's objective finds in the data, such as labels.
Data look_at_data(Recipe& recipe) {
  Data data;
  for (const auto& source : recipe.data.train.sources) {
    if (data.missing.empty() && !std::filesystem::exists(source.path)) data.missing = source.path;
  }
  if (!data.missing.empty()) return data;
  const TokenizerPtr tokenizer = open_tokenizer(recipe, open_start(recipe).get());
  const ObjectivePtr objective =
      make_objective(recipe.objective, objective_setting(recipe, tokenizer, /*with_data=*/true));
  objective->settle(recipe.objective);
  data.vocab_size = tokenizer->vocab_size();
  data.epoch_size = open_training_data(recipe, *objective).epoch_size;
  return data;
}

void print_batch(const Recipe& recipe, int ranks) {
  const BatchArithmetic batch = batch_arithmetic(recipe, ranks);
  const int64_t together = ranks_per_sample(recipe.parallel);
  std::string who = fmt::format("{} {}{}", batch.replicas, together == 1 ? "rank" : "group",
                                batch.replicas == 1 ? "" : "s");
  if (together > 1) who += fmt::format(" of {} ranks", together);
  print_line(
      "batch",
      fmt::format("{} sequences = {} x micro-batch {} x {} accumulated; x {} = {} tokens per step",
                  batch.global_batch, who, batch.micro_batch, batch.accumulation, recipe.data.sequence_length,
                  with_commas(batch.global_batch * recipe.data.sequence_length)));
}

void print_length(const Recipe& recipe, const Data& data) {
  const int64_t batch = recipe.train.global_batch;
  std::string text;
  if (recipe.train.steps) {
    const int64_t samples = *recipe.train.steps * batch;
    text = fmt::format("{} steps = {} sequences = {} tokens", with_commas(*recipe.train.steps),
                       with_commas(samples), with_commas(samples * recipe.data.sequence_length));
    if (data.missing.empty()) {
      text += fmt::format(" = {:.2f} epochs",
                          static_cast<double>(samples) / static_cast<double>(data.epoch_size));
    }
  } else {
    text = fmt::format("{} epochs", *recipe.train.epochs);
    if (data.missing.empty()) {
      const double steps =
          *recipe.train.epochs * static_cast<double>(data.epoch_size) / static_cast<double>(batch);
      text += fmt::format(" = {} steps", with_commas(std::max<int64_t>(1, std::llround(steps))));
    }
  }
  print_line("length", text);
  print_line("data", data.missing.empty()
                         ? fmt::format("{} sequences = {:.1f} steps per epoch", with_commas(data.epoch_size),
                                       static_cast<double>(data.epoch_size) / static_cast<double>(batch))
                         : data.missing + " is not there yet (tessera prepare makes it)");
}

void print_parameters(const Recipe& recipe, const ModelFacts& facts, bool vocabulary_known) {
  print_line("model",
             fmt::format("{}, {} parameters{}", recipe.model.name(), with_commas(facts.total),
                         vocabulary_known ? ""
                                          : fmt::format(" with a vocabulary of {} (the data will tell)",
                                                        with_commas(facts.vocab_size))));
  for (const auto& part : facts.parts) {
    const std::string count =
        part.times == 1 ? ""
                        : fmt::format(" ({} x {})", part.times, with_commas(part.parameters / part.times));
    print_line("", fmt::format("{:<30}{:>14}{}", part.name, with_commas(part.parameters), count));
  }
}

void check_hosts(int ranks, int hosts) {
  if (ranks % hosts == 0) return;
  const int below = ranks / hosts * hosts;
  throw Error(fmt::format("--hosts: {} hosts do not share {} ranks evenly; valid: {}{} ranks, or {} host{}",
                          hosts, ranks, below > 0 ? fmt::format("{} or ", below) : "", below + hosts,
                          divisor_up_to(ranks, hosts), divisor_up_to(ranks, hosts) == 1 ? "" : "s"));
}

/// 0: not known before the data are there.
int64_t num_steps(const Recipe& recipe, const Data& data) {
  if (recipe.train.steps) return *recipe.train.steps;
  return std::llround(*recipe.train.epochs * static_cast<double>(data.epoch_size) /
                      static_cast<double>(recipe.train.global_batch));
}

int run_suggest(const Recipe& recipe, const ValidateArguments& options, const ModelFacts& facts,
                const MachineFigures& machine) {
  // The rest is left to libraries and to what lies between tensors, much on a CPU's heap.
  const double usable = recipe.train.device == DeviceChoice::cpu ? 0.7 : 0.9;
  const Layout base = recipe_layout(recipe);
  const std::string limit = fmt::format("{:.0f} % of {} per rank{}", 100 * usable, bytes_text(machine.memory),
                                        options.memory > 0 ? "" : " (--memory GB says otherwise)");
  const Suggestions found =
      suggest_layouts(facts, base, machine,
                      {options.ranks, options.hosts, recipe.train.global_batch, usable * machine.memory});
  if (found.considered == 0) {
    throw recipe.error(
        "train.global_batch",
        fmt::format("{} cannot be divided among {} ranks on any mesh; valid: a multiple of {}, "
                    "or fewer ranks",
                    recipe.train.global_batch, options.ranks, options.ranks));
  }
  if (found.best.empty()) {
    throw Error(fmt::format(
        "none of {} layouts fits in {}: the smallest needs {}; valid: more ranks, or --memory {:.0f}",
        with_commas(found.considered), limit, bytes_text(found.smallest.total),
        std::ceil(found.smallest.total / usable / 1e9)));
  }
  print_line("recipe", options.recipe + " is valid");
  print_suggestions(found, base, limit);
  print_line("figures", machine.source);
  return 0;
}

int run_validate(const ValidateArguments& options) {
  Recipe recipe = read_recipe(options.recipe, options.overrides, catalog());
  check_hosts(options.ranks, options.hosts);
  if (!options.suggest) check_ranks(recipe, options.ranks);
  MachineFigures machine = options.machine.empty() ? usual_machine(recipe, options.ranks / options.hosts)
                                                   : read_machine(options.machine);
  if (options.memory > 0) machine.memory = options.memory * 1e9;
  const Data data = look_at_data(recipe);
  const ModelFacts facts = look_at_model(recipe, data.vocab_size);
  if (options.suggest) return run_suggest(recipe, options, facts, machine);
  check_vocabulary(recipe, facts.vocab_size);
  const Forecast plan =
      make_forecast(facts, make_layout(recipe, facts, options.ranks, options.hosts), machine);
  if (options.json) {
    fmt::print("{}\n", plan_json(facts, plan));
    return 0;
  }
  print_line("recipe", options.recipe + " is valid");
  print_batch(recipe, options.ranks);
  print_length(recipe, data);
  print_parameters(recipe, facts, data.vocab_size > 0);
  print_plan(facts, plan, machine, num_steps(recipe, data));
  return 0;
}

}  // namespace

std::function<int()> declare_validate(CLI::App& app) {
  auto options = std::make_shared<ValidateArguments>();
  app.add_option("recipe", options->recipe, "The recipe's file")->required();
  app.add_option("--ranks", options->ranks, "How many ranks will run it")->check(CLI::PositiveNumber);
  app.add_option("--hosts", options->hosts, "On how many hosts they are")->check(CLI::PositiveNumber);
  app.add_option("--machine", options->machine, "Figures of the machine: a file of tessera doctor --save");
  app.add_option("--memory", options->memory, "GB that a rank may need; default: this machine's")
      ->check(CLI::PositiveNumber);
  app.add_flag("--suggest", options->suggest, "Name the fastest layouts for these ranks instead");
  app.add_flag("--json", options->json, "The plan's figures for programs");
  app.add_option("overrides", options->overrides, "Changes to the recipe: key.sub=value");
  return [options] { return run_validate(*options); };
}

}  // namespace tessera
