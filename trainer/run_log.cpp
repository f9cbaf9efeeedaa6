#include "trainer/run_log.h"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>
#include <iostream>

#include "parallel/launch_info.h"
#include "trainer/catalog.h"

namespace tessera {
namespace {

double value_of(const std::vector<Metric>& values, const std::string& name) {
  for (const auto& [key, value] : values) {
    if (key == name) return value;
  }
  return 0;
}

/// Whether someone looks at standard output. mpirun gives every rank a terminal of its own, so what counts
/// under it is where its own output goes; it is the parent of the ranks on its host.
bool shown_on_a_terminal() {
  if (isatty(STDOUT_FILENO) == 0) return false;
  if (launch_info().launcher != "mpirun") return true;
  std::error_code unknown;
  const auto target =
      std::filesystem::read_symlink(fmt::format("/proc/{}/fd/1", getppid()), unknown).string();
  return !unknown && (target.rfind("/dev/pts/", 0) == 0 || target.rfind("/dev/tty", 0) == 0);
}

}  // namespace

RunLog::RunLog(const Recipe& recipe, int rank)
    : speaks_(rank == 0),
      folder_(recipe.run.folder),
      recipe_text_(dump(recipe, catalog())),
      every_(recipe.log.every),
      tensorboard_(recipe.log.tensorboard) {}

void RunLog::start(int64_t step, int64_t total) {
  if (!speaks_) return;
  metrics_ = std::make_unique<MetricsLog>(folder_ + "/metrics.jsonl", step);
  if (tensorboard_) {
    events_ = std::make_unique<EventWriter>(folder_, step);
    events_->text(step, "recipe", "```\n" + recipe_text_ + "```\n");
  }
  ProgressOptions options;
  options.total = total;
  options.first_step = step;
  options.every = every_;
  options.terminal = shown_on_a_terminal();
  progress_ = std::make_unique<Progress>(std::cout, options);
}

void RunLog::notice(const std::string& text) {
  if (speaks_) std::cerr << text << std::endl;
}

void RunLog::table(const std::string& text) {
  if (speaks_) std::cout << text << std::flush;
}

void RunLog::training(int64_t step, const std::vector<Metric>& values) {
  if (!speaks_) return;
  metrics_->write(step, values);
  if (events_) events_->scalars(step, values);
  progress_->update(step, {value_of(values, "loss"), value_of(values, "learning_rate"),
                           value_of(values, "tokens_per_second")});
}

void RunLog::validation(int64_t step, const LossReport& report, double seconds) {
  if (!speaks_) return;
  std::vector<Metric> values = {{"validation_loss", report.loss}};
  std::string text = fmt::format("validation after step {}: loss {:.4f}", step, report.loss);
  for (const auto& [name, value] : report.values) {
    values.emplace_back("validation_" + name, value);
    text += fmt::format(", {} {:.4f}", name, value);
  }
  metrics_->write(step, values);
  if (events_) events_->scalars(step, values);
  progress_->note(text + fmt::format(" ({:.1f} s)", seconds));
}

void RunLog::saved(int64_t step) {
  if (speaks_) progress_->note(fmt::format("saving step {}", step));
}

void RunLog::finish() {
  if (speaks_) progress_->finish();
}

}  // namespace tessera
