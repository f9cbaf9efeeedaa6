#pragma once
#include "datasets/open.h"
#include "recipes/recipe.h"
#include "trainer/objective.h"
#include "trainer/start_model.h"

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

/// The recipe's tokenizer, or the one that the training data was made with, or that of the model it starts
/// from, if it does (`start` not null). Errors: Error where there is none, or where the last two differ.
TokenizerPtr open_tokenizer(const Recipe& recipe, const StartModel* start);

}  // namespace tessera
