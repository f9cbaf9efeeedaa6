#pragma once
#include <string>

#include "datasets/tokenizer.h"
#include "recipes/recipe.h"
#include "trainer/checkpoint.h"
#include "trainer/model.h"
#include "trainer/objective.h"

namespace tessera {

/// A model as training left it, with what is needed to use it.
struct TrainedModel {
  std::string checkpoint;  ///< the folder that it came from
  CheckpointMeta meta;
  Recipe recipe;
  TokenizerPtr tokenizer;
  ObjectivePtr objective;
  ModelPtr model;  ///< float32 on the CPU
};

/// Reads the model of a checkpoint, or of the newest whole checkpoint of a run's folder. `averaged`: the
/// moving average instead of the weights themselves (Error where the run kept none). Errors: Error where
/// there is no whole checkpoint.
TrainedModel load_trained_model(const std::string& path, bool averaged = false);

}  // namespace tessera
