#include "trainer/evaluate.h"

#include <fmt/format.h>

#include "launch/commands.h"
#include "launch/few_shot.h"
#include "launch/model_options.h"
#include "recipes/error.h"
#include "trainer/prediction_files.h"
#include "trainer/training_data.h"

namespace tessera {
namespace {

struct EvaluateArguments {
  std::shared_ptr<ModelOptions> model;
  std::string data, predictions;
  FewShotOptions few_shot;
  int64_t micro_batch = 0, samples = 0;
};

int run_evaluate(const EvaluateArguments& options) {
  if (!options.few_shot.task.empty()) {
    return run_few_shot(*options.model, {options.few_shot.task, options.few_shot.shots, options.micro_batch,
                                         options.samples, options.predictions});
  }
  const TrainedModel trained = options.model->open();
  const Recipe& recipe = trained.recipe;
  if (options.data.empty() && !recipe.data.validation) {
    throw Error(options.model->path + ": its recipe names no data.validation; pass --data FILE");
  }
  const DatasetPtr dataset = open_validation_data(recipe, *trained.objective, options.data);
  EvaluateOptions how;
  how.micro_batch = options.micro_batch > 0 ? options.micro_batch : recipe.train.micro_batch;
  how.max_samples = options.samples;
  how.device = device_of(*trained.model);
  const LossReport report = evaluate(*trained.model, *trained.objective, *dataset, how);
  fmt::print("{} on {}\n", trained.checkpoint, options.data.empty() ? *recipe.data.validation : options.data);
  fmt::print("{:<20} {:.4f}\n", "loss", report.loss);
  for (const auto& [name, value] : report.values) fmt::print("{:<20} {:.4f}\n", name, value);
  if (report.predictions.defined()) {
    fmt::print("{}", confusion_table(trained.objective->confusion(report.predictions)));
  }
  if (options.predictions.empty()) return 0;
  if (!report.predictions.defined()) {
    throw Error(fmt::format("--predictions: {} predicts nothing to write down; valid: checkpoints of tasks",
                            recipe.objective.name()));
  }
  write_prediction_lines(options.predictions,
                         trained.objective->prediction_lines(report.predictions, *dataset));
  return 0;
}

}  // namespace

std::function<int()> declare_evaluate(CLI::App& app) {
  auto options = std::make_shared<EvaluateArguments>();
  options->model = add_model_options(app);
  add_device_option(app, *options->model);
  auto* few_shot = add_few_shot_options(app, options->few_shot);
  app.add_option("--data", options->data,
                 "Token file, or a task's records (default: the recipe's data.validation)")
      ->excludes(few_shot);
  app.add_option("--predictions", options->predictions, "Also write each sample's prediction, as JSON lines");
  app.add_option("--micro-batch", options->micro_batch, "Sequences at a time (default: the recipe's)")
      ->check(CLI::PositiveNumber);
  app.add_option("--samples", options->samples, "Only the first N samples")->check(CLI::PositiveNumber);
  return [options] { return run_evaluate(*options); };
}

}  // namespace tessera
