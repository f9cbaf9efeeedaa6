#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "recipes/recipe.h"
#include "trainer/evaluate.h"
#include "trainer/metrics.h"
#include "trainer/progress.h"

namespace tessera {

/// Where a run's story goes: progress on the terminal, metrics.jsonl and TensorBoard events in the run's
/// folder. Only rank 0 has something to tell; on other ranks all of this does nothing.
class RunLog {
 public:
  RunLog(const Recipe& recipe, int rank);

  /// The run begins, or goes on, after `step` of `total` steps; lines of later steps are forgotten.
  void start(int64_t step, int64_t total);
  /// One line on standard error, between the lines of progress.
  void notice(const std::string& text);
  /// The start-up table.
  void table(const std::string& text);
  /// A step's numbers.
  void training(int64_t step, const std::vector<Metric>& values);
  void validation(int64_t step, const LossReport& report, double seconds);
  void saved(int64_t step);
  void finish();

 private:
  bool speaks_;
  std::string folder_;
  std::string recipe_text_;
  int64_t every_;
  bool tensorboard_;
  std::unique_ptr<MetricsLog> metrics_;
  std::unique_ptr<EventWriter> events_;
  std::unique_ptr<Progress> progress_;
};

}  // namespace tessera
