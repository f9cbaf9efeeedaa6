#include "launch/few_shot.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "datasets/tokenizer/unicode.h"
#include "launch/few_shot_task.h"
#include "recipes/error.h"
#include "trainer/few_shot.h"
#include "trainer/files.h"

namespace tessera {
namespace {

void require_causal(const TrainedModel& trained) {
  if (trained.model->causal() && trained.objective->heads().vocabulary) return;
  throw Error(
      fmt::format("{}: trained for {}, it does not continue texts; valid for --few-shot: a causal "
                  "language model (objective causal_lm)",
                  trained.checkpoint, trained.recipe.objective.name()));
}

double length_of(const std::string& choice, const ScoredText& text, ChoiceLength unit) {
  if (unit == ChoiceLength::tokens) return static_cast<double>(text.scored);
  return static_cast<double>(unit == ChoiceLength::bytes ? static_cast<int64_t>(choice.size())
                                                         : unicode::count(choice));
}

/// Questions for one model.
class FewShotScorer {
 public:
  FewShotScorer(const TrainedModel& trained, const FewShotTask& task, const Questions& questions)
      : model_(*trained.model),
        encoder_(trained.tokenizer, trained.model->max_positions()),
        task_(task),
        questions_(questions) {}

  /// Questions from `first` on, fewer than `end` where they have many choices.
  std::vector<ScoredChoices> score(int64_t first, int64_t end, int64_t micro_batch) const {
    constexpr size_t enough = 2048;  // bounds the memory, and gives equal lengths a chance to meet
    std::vector<ScoredChoices> block;
    std::vector<ScoredText> texts;
    for (int64_t i = first; i < end && texts.size() < enough; ++i) block.push_back(prepare(i, texts));
    const std::vector<double> sums = log_likelihoods(model_, texts, micro_batch);
    auto sum = sums.begin();
    for (ScoredChoices& question : block) {
      const auto count = static_cast<int64_t>(question.lengths.size());
      question.log_likelihoods.assign(sum, sum + count);
      sum += count;
    }
    return block;
  }

 private:
  /// Question i, yet without log-likelihoods; adds its texts.
  ScoredChoices prepare(int64_t i, std::vector<ScoredText>& texts) const {
    const Question question = questions_.at(i);
    const std::string context = questions_.preceding(i) + question.prompt;
    ScoredChoices scored;
    scored.answer = question.answer;
    for (const std::string& choice : question.choices) {
      try {
        texts.push_back(encoder_.encode(context, task_.target_delimiter + choice));
      } catch (const Error& problem) {
        throw Error(fmt::format("{}: choice {} '{:.40}': {}", questions_.where(i), scored.lengths.size(),
                                choice, problem.what()));
      }
      scored.lengths.push_back(length_of(choice, texts.back(), task_.normalize));
    }
    return scored;
  }

  const Model& model_;
  ScoredTextEncoder encoder_;
  const FewShotTask& task_;
  const Questions& questions_;
};

std::string prediction_line(size_t index, const ScoredChoices& question) {
  const nlohmann::ordered_json line = {{"index", index},
                                       {"answer", question.answer},
                                       {"prediction", question.prediction()},
                                       {"prediction_norm", question.normalized_prediction()},
                                       {"log_likelihoods", question.log_likelihoods}};
  return line.dump() + "\n";
}

void print_report(const FewShotReport& report) {
  const auto row = [](const char* name, const MeanWithError& value) {
    fmt::print("{:<20} {:>10.4f} {:>10.4f}\n", name, value.mean, value.error);
  };
  fmt::print("{:<20} {:>10} {:>10}\n", "metric", "value", "stderr");
  row("acc", report.accuracy);
  row("acc_norm", report.normalized_accuracy);
  row("log_likelihood", report.log_likelihood);
}

/// All lines go to the file as soon as they are known.
class PredictionFile {
 public:
  explicit PredictionFile(const std::string& path) {
    if (!path.empty()) file_.emplace(path, O_WRONLY | O_CREAT | O_TRUNC);
  }
  void write(const std::string& line) {
    if (!file_) return;
    file_->write(size_, line.data(), static_cast<int64_t>(line.size()));
    size_ += static_cast<int64_t>(line.size());
  }

 private:
  std::optional<OpenFile> file_;
  int64_t size_ = 0;
};

}  // namespace

CLI::Option* add_few_shot_options(CLI::App& app, FewShotOptions& options) {
  auto* task = app.add_option("--few-shot", options.task,
                              "Measure how likely a causal model finds the choices of this task (YAML)")
                   ->type_name("TASK");
  app.add_option("--shots", options.shots, "Examples before each question (default: the task's)")
      ->needs(task);
  return task;
}

int run_few_shot(const ModelOptions& model, const FewShotOptions& options) {
  std::vector<std::string> overrides;
  if (options.shots) overrides.push_back(fmt::format("shots={}", *options.shots));
  const FewShotTask task = read_few_shot_task(options.task, overrides);
  const Questions questions(task);
  const TrainedModel trained = model.open();
  require_causal(trained);
  const FewShotScorer scorer(trained, task, questions);
  const int64_t size = options.samples > 0 ? std::min(options.samples, questions.size()) : questions.size();
  const int64_t micro = options.micro_batch > 0 ? options.micro_batch : trained.recipe.train.micro_batch;
  PredictionFile predictions(options.predictions);
  std::vector<ScoredChoices> scored;
  while (static_cast<int64_t>(scored.size()) < size) {
    for (ScoredChoices& question : scorer.score(static_cast<int64_t>(scored.size()), size, micro)) {
      predictions.write(prediction_line(scored.size(), question));
      scored.push_back(std::move(question));
    }
  }
  fmt::print("{} on {}: {} questions, {} shots\n", trained.checkpoint, task.data, size, task.shots);
  print_report(summarise(scored));
  return 0;
}

}  // namespace tessera
