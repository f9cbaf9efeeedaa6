#include "launch/model_options.h"

namespace tessera {

std::shared_ptr<ModelOptions> add_model_options(CLI::App& app) {
  auto options = std::make_shared<ModelOptions>();
  app.add_option("checkpoint", options->path, "A checkpoint, or a run's folder: its newest one")->required();
  app.add_flag("--ema", options->load.averaged, "Use the moving average of the weights");
  app.add_option("--base", options->load.base,
                 "Where the base of a LoRA run is now (default: where its recipe says)");
  app.add_option("--adapter", options->load.adapters,
                 "Folder of a PEFT adapter to merge into the model; may be repeated");
  return options;
}

}  // namespace tessera
