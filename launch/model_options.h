#pragma once
#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "trainer/trained_model.h"

namespace tessera {

/// Which trained model a command uses: its first argument, and options.
struct ModelOptions {
  std::string path;
  LoadOptions load;
  TrainedModel open() const { return load_trained_model(path, load); }
};

std::shared_ptr<ModelOptions> add_model_options(CLI::App& app);

}  // namespace tessera
