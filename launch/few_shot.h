#pragma once
#include <CLI/CLI.hpp>
#include <cstdint>
#include <optional>
#include <string>

#include "launch/model_options.h"

namespace tessera {

/// What `tessera evaluate` was asked of a task by the likelihood of its choices.
struct FewShotOptions {
  std::string task;  ///< its file; "": another evaluation is meant
  std::optional<int64_t> shots = {};
  int64_t micro_batch = 0, samples = 0;  ///< 0: the recipe's, all
  std::string predictions = {};          ///< where JSON lines go; "": nowhere
};

/// Returns the option that asks for it.
CLI::Option* add_few_shot_options(CLI::App& app, FewShotOptions& options);

/// Prints the metrics. Errors: Error for a model that is not causal and for mistakes in the task and its
/// data.
int run_few_shot(const ModelOptions& model, const FewShotOptions& options);

}  // namespace tessera
