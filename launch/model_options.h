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
  std::string device = "cpu";  ///< as --device names it
  /// Reads the model onto its device; says on standard error where a GPU is left unused.
  TrainedModel open() const;
};

std::shared_ptr<ModelOptions> add_model_options(CLI::App& app);
/// For commands that compute: --device, a GPU where there is one unless it says otherwise.
void add_device_option(CLI::App& app, ModelOptions& options);

}  // namespace tessera
