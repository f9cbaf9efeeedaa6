#include "launch/model_options.h"

#include <cstdio>

#include "trainer/device.h"

namespace tessera {

TrainedModel ModelOptions::open() const {
  const DeviceWish wish = read_device(device, "--device");
  LoadOptions with_device = load;
  with_device.device = choose_device(wish, /*local_rank=*/0);
  const std::string notice = device_notice(wish);
  if (!notice.empty()) std::fprintf(stderr, "tessera: %s\n", notice.c_str());
  return load_trained_model(path, with_device);
}

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

void add_device_option(CLI::App& app, ModelOptions& options) {
  options.device = "auto";
  app.add_option("--device", options.device,
                 "Where to compute: auto (a GPU where there is one), cpu, cuda, or cuda:N for one of several")
      ->capture_default_str();
}

}  // namespace tessera
