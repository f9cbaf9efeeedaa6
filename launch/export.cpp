// tessera export: a checkpoint as a Hugging Face folder.
#include <fmt/format.h>

#include <cstdio>

#include "launch/commands.h"
#include "trainer/hugging_face/folder.h"
#include "trainer/trained_model.h"

namespace tessera {

std::function<int()> declare_export(CLI::App& app) {
  struct Options {
    std::string checkpoint, out, dtype = "fp32";
    double shard_megabytes = 5000;
    bool averaged = false;
  };
  auto options = std::make_shared<Options>();
  app.add_option("checkpoint", options->checkpoint, "A checkpoint, or a run's folder: its newest one")
      ->required();
  app.add_option("folder", options->out, "The folder to make, for transformers' from_pretrained")->required();
  app.add_option("--dtype", options->dtype, "Of the weights in the file")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}))
      ->capture_default_str();
  app.add_option("--shard-size", options->shard_megabytes, "Largest file, in MB (10^6 bytes)")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--ema", options->averaged, "Use the moving average of the weights");
  return [options] {
    const TrainedModel trained = load_trained_model(options->checkpoint, options->averaged);
    ExportOptions how;
    how.dtype = options->dtype == "bf16" ? at::kBFloat16 : options->dtype == "fp16" ? at::kHalf : at::kFloat;
    how.shard_bytes = static_cast<int64_t>(options->shard_megabytes * 1e6);
    how.objective = trained.recipe.objective;
    write_hugging_face_folder(options->out, *trained.model, trained.recipe.model, *trained.tokenizer, how);
    fmt::print("{}: {} of step {} for transformers' from_pretrained\n", options->out,
               trained.recipe.model.name(), trained.meta.step);
    return 0;
  };
}

}  // namespace tessera
