#pragma once
#include "datasets/open.h"
#include "recipes/recipe.h"
#include "trainer/objective.h"

namespace tessera {

/// What the recipe's data.train names, as its objective reads it: token files, or the files of a task. Errors
/// as open_dataset(), or Objective::open()'s.
TrainingData open_training_data(const Recipe& recipe, const Objective& objective);

/// The same of data.validation, or of `path` where one is given; null where neither is.
DatasetPtr open_validation_data(const Recipe& recipe, const Objective& objective,
                                const std::string& path = {});

/// What is in the recipe's first training file; of a task's records, nothing but the kind. Errors as
/// describe_dataset().
DatasetFacts describe_training_data(const Recipe& recipe);

}  // namespace tessera
