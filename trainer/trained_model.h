#pragma once
#include <optional>
#include <string>
#include <vector>

#include "datasets/tokenizer.h"
#include "recipes/recipe.h"
#include "trainer/checkpoint.h"
#include "trainer/model.h"
#include "trainer/objective.h"
#include "trainer/parameters.h"

namespace tessera {

/// A model as training left it, with what is needed to use it.
struct TrainedModel {
  std::string checkpoint;  ///< the folder that it came from
  CheckpointMeta meta;
  Recipe recipe;
  TokenizerPtr tokenizer;
  ObjectivePtr objective;
  ModelPtr model;                    ///< float32 on the device that was asked for
  std::vector<std::string> in_full;  ///< parameters of a LoRA run that were trained beside low-rank parts
};

struct LoadOptions {
  bool averaged = false;  ///< the moving average of what was trained; Error where the run kept none
  /// Where the base of a LoRA run is now; nothing: where its recipe says.
  std::optional<std::string> base = {};
  std::vector<std::string> adapters = {};  ///< folders of PEFT adapters, merged into the model in this order
  at::Device device = at::kCPU;            ///< where the model goes once it has been read
};

/// Reads the model of a checkpoint, or of the newest whole checkpoint of a run's folder. Of a LoRA run it has
/// low-rank parts beside the base. Errors: Error where there is no whole checkpoint, or another base.
TrainedModel load_trained_model(const std::string& path, const LoadOptions& options = {});

/// All parameters of a model that is not divided, whole, as what loads them takes them.
std::vector<Parameter> whole_parameters(const Model& model);

}  // namespace tessera
