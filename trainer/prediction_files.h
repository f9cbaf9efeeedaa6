#pragma once
#include <string>

#include "trainer/objective.h"

namespace tessera {

/// A line of JSON for each sample. Errors: Error naming the file.
void write_prediction_lines(const std::string& path, const std::vector<std::string>& lines);

/// What Objective::predictions() gave for a dataset.
struct Predicted {
  const at::Tensor& rows;
  const Dataset& dataset;
};

/// Writes FOLDER/predictions-STEP.jsonl and, where the objective tells classes apart,
/// FOLDER/confusion-STEP.json
/// ({"labels": […], "counts": [[…]]}, a row for each truth). Errors: Error naming the file.
void write_predictions(const std::string& folder, int64_t step, const Objective& objective,
                       const Predicted& predicted);

/// The matrix as lines for a terminal; "" where it is too large for one.
std::string confusion_table(const Confusion& confusion);

}  // namespace tessera
