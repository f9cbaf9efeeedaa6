// tessera export: a checkpoint as a Hugging Face folder.
#include <fmt/format.h>

#include <cstdio>

#include "launch/commands.h"
#include "launch/model_options.h"
#include "recipes/error.h"
#include "trainer/hugging_face/folder.h"
#include "trainer/hugging_face/peft.h"

namespace tessera {

namespace {

/// PEFT's name for what the model is for.
std::string peft_task(const Objective& objective) {
  switch (objective.heads().task) {
    case TaskHead::sequence:
      return "SEQ_CLS";
    case TaskHead::tokens:
      return "TOKEN_CLS";
    case TaskHead::span:
      return "QUESTION_ANS";
    case TaskHead::none:
      break;
  }
  return objective.terms().front() == "lm" ? "CAUSAL_LM" : "";
}

}  // namespace

std::function<int()> declare_export(CLI::App& app) {
  struct Options {
    std::shared_ptr<ModelOptions> model;
    std::string out, dtype = "fp32";
    double shard_megabytes = 5000;
    bool merge = false;
  };
  auto options = std::make_shared<Options>();
  options->model = add_model_options(app);
  app.add_option("folder", options->out, "The folder to make, for transformers' from_pretrained")->required();
  app.add_option("--dtype", options->dtype, "Of the weights in the file")
      ->check(CLI::IsMember({"fp32", "bf16", "fp16"}))
      ->capture_default_str();
  app.add_option("--shard-size", options->shard_megabytes, "Largest file, in MB (10^6 bytes)")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--merge", options->merge,
               "Of a LoRA run: the whole model with its low-rank parts added (default: an adapter for PEFT)");
  return [options] {
    const TrainedModel trained = options->model->open();
    const auto* lora = trained.recipe.adapt.get_if<LoraOptions>();
    if (options->merge && !lora) {
      throw Error(fmt::format("{}: is of no LoRA run: there is nothing to merge; valid: without --merge",
                              trained.checkpoint));
    }
    if (lora && !options->merge) {
      write_peft_folder(options->out, *trained.model,
                        {trained.recipe.model.text("from").value_or(""), peft_task(*trained.objective), *lora,
                         trained.in_full});
      fmt::print("{}: the adapter of step {} for PEFT's from_pretrained\n", options->out, trained.meta.step);
      return 0;
    }
    if (lora) merge_lora(*trained.model);
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
