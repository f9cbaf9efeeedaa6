// What a recipe comes to, told before anything is spent on it: no MPI, no GPU, no memory for weights.
#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "datasets/open.h"
#include "launch/commands.h"
#include "launch/estimate.h"
#include "recipes/recipe.h"
#include "trainer/catalog.h"
#include "trainer/objectives/objectives.h"

namespace tessera {
namespace {

struct ValidateArguments {
  std::string recipe;
  int ranks = 1;
  std::vector<std::string> overrides;
};

/// The training data, where it is there already.
struct Data {
  std::string missing;     ///< the first file that is not there
  int64_t vocab_size = 0;  ///< 0: not known yet
  int64_t epoch_size = 0;  ///< in samples
};

Data look_at_data(const Recipe& recipe) {
  Data data;
  std::vector<std::string> paths;
  for (const auto& source : recipe.data.train.sources) {
    paths.push_back(source.path);
    if (data.missing.empty() && !std::filesystem::exists(source.path)) data.missing = source.path;
  }
  if (!data.missing.empty()) return data;
  const DatasetFacts facts = describe_dataset(paths);
  if (!recipe.data.tokenizer && facts.tokenizer_json.empty()) {
    throw recipe.error("data.tokenizer",
                       "missing: " + paths.front() + " holds none; valid: tokenizer.json or its folder");
  }
  const TokenizerPtr tokenizer = recipe.data.tokenizer
                                     ? Tokenizer::load(*recipe.data.tokenizer)
                                     : Tokenizer::parse(facts.tokenizer_json, paths.front());
  const ObjectivePtr objective =
      make_objective(recipe.objective, {tokenizer, recipe.data.sequence_length, recipe.run.seed});
  data.vocab_size = tokenizer->vocab_size();
  data.epoch_size = open_training_data(recipe.data, objective->example_kind(), recipe.run.seed).epoch_size;
  return data;
}

void line(const std::string& title, const std::string& text) { fmt::print("{:<11}{}\n", title, text); }

void print_batch(const Recipe& recipe, int ranks) {
  const BatchArithmetic batch = batch_arithmetic(recipe, ranks);
  line("batch",
       fmt::format("{} sequences = {} rank{} x micro-batch {} x {} accumulated; x {} = {} tokens per step",
                   batch.global_batch, ranks, ranks == 1 ? "" : "s", batch.micro_batch, batch.accumulation,
                   recipe.data.sequence_length,
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
  line("length", text);
  line("data", data.missing.empty()
                   ? fmt::format("{} sequences = {:.1f} steps per epoch", with_commas(data.epoch_size),
                                 static_cast<double>(data.epoch_size) / static_cast<double>(batch))
                   : data.missing + " is not there yet (tessera prepare makes it)");
}

void print_parameters(const Recipe& recipe, const ModelParts& parts, bool vocabulary_known) {
  line("model", fmt::format("{}, {} parameters{}", recipe.model.name(), with_commas(parts.total),
                            vocabulary_known ? ""
                                             : fmt::format(" with a vocabulary of {} (the data will tell)",
                                                           with_commas(parts.vocab_size))));
  for (const auto& part : parts.parts) {
    const std::string count =
        part.times == 1 ? ""
                        : fmt::format(" ({} x {})", part.times, with_commas(part.parameters / part.times));
    line("", fmt::format("{:<22}{:>16}{}", part.name, with_commas(part.parameters), count));
  }
}

void print_memory(const Recipe& recipe, const ModelParts& parts, int ranks) {
  int64_t total = 0;
  const auto kinds = memory_per_rank(recipe, parts, ranks);
  for (const auto& kind : kinds) total += kind.bytes;
  line("memory", fmt::format("{} per rank, about", bytes_text(total)));
  for (const auto& kind : kinds)
    line("", fmt::format("{:<22}{:>16}  {}", kind.name, bytes_text(kind.bytes), kind.why));
}

int run_validate(const ValidateArguments& options) {
  const Recipe recipe = read_recipe(options.recipe, options.overrides, catalog());
  check_ranks(recipe, options.ranks);
  const Data data = look_at_data(recipe);
  const ModelParts parts = count_parameters(recipe, data.vocab_size);
  line("recipe", options.recipe + " is valid");
  print_batch(recipe, options.ranks);
  print_length(recipe, data);
  print_parameters(recipe, parts, data.vocab_size > 0);
  print_memory(recipe, parts, options.ranks);
  return 0;
}

}  // namespace

std::function<int()> declare_validate(CLI::App& app) {
  auto options = std::make_shared<ValidateArguments>();
  app.add_option("recipe", options->recipe, "The recipe's file")->required();
  app.add_option("--ranks", options->ranks, "How many ranks will run it")->check(CLI::PositiveNumber);
  app.add_option("overrides", options->overrides, "Changes to the recipe: key.sub=value");
  return [options] { return run_validate(*options); };
}

}  // namespace tessera
