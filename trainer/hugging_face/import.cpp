#include "trainer/hugging_face/import.h"

#include <fmt/format.h>

#include "recipes/error.h"
#include "recipes/recipe.h"
#include "trainer/catalog.h"
#include "trainer/checkpoint.h"
#include "trainer/hugging_face/folder.h"
#include "trainer/models/models.h"
#include "trainer/objectives/objectives.h"
#include "trainer/parameters.h"

namespace tessera {
namespace {

constexpr uint64_t import_seed = 1;  // of what the folder lacks

/// What the folder's heads were trained for.
Choice objective_of(const HuggingFaceFolder& folder) {
  if (folder.model().objective.chosen()) return folder.model().objective;
  const bool pairs = folder.has("cls.seq_relationship.weight") || folder.has("bert.pooler.dense.weight");
  const char* name = folder.model().model.name() == "gpt" ? "causal_lm" : pairs ? "mlm_nsp" : "mlm";
  return Choice(*objective_choices().find(name));
}

std::string section_line(const Choice& choice, const ChoiceTable& table) {
  Rules rules;
  rules.table = &table;
  return to_line(Value<Choice>::write(choice, rules));
}

/// A recipe that says what the model is; there was no run of ours.
Recipe recipe_of(const HuggingFaceFolder& folder, const std::string& out) {
  const Choice& model = folder.model().model;
  Section run = Section::map();
  run.set("folder", Section::scalar(out, true));
  const std::string text = fmt::format(
      "run: {}\nmodel: {}\nobjective: {}\ndata: {{train: imported, sequence_length: {}}}\n"
      "optimizer: {{name: adamw, learning_rate: 1e-4}}\nschedule: {{name: linear}}\n"
      "train: {{steps: 1, global_batch: 1, micro_batch: 1}}\n",
      to_line(run), section_line(model, catalog().model),
      section_line(objective_of(folder), catalog().objective), model.integer("max_positions").value());
  return read_recipe_text(text, folder.path() + "/config.json", {}, catalog());
}

}  // namespace

ImportedModel import_model(const std::string& from, const std::string& out) {
  const HuggingFaceFolder folder = HuggingFaceFolder::open(from);
  if (!folder.tokenizer()) {
    throw Error(from +
                ": has no tokenizer.json; save it anew with transformers: "
                "AutoTokenizer.from_pretrained(…).save_pretrained(…)");
  }
  if (!list_checkpoints(out + "/checkpoints").empty()) {
    throw Error(out + ": holds checkpoints already; valid: another folder");
  }
  const Recipe recipe = recipe_of(folder, out);
  const ModelPtr model =
      make_model(recipe.model, {folder.tokenizer()->vocab_size(), kind_of(recipe.objective).heads});
  model->initialise(import_seed);
  ImportedModel imported;
  imported.fresh = folder.load(*model);
  CheckpointMeta meta;
  meta.seed = import_seed;
  meta.recipe = dump(recipe, catalog());
  meta.tokenizer = folder.tokenizer()->json();
  meta.state_json = R"({"optimizer_steps": 0})";
  meta.layout = "imported from " + folder.model().architecture;
  std::vector<TensorPiece> pieces;
  for (const auto& parameter : collect_parameters(*model)) {
    imported.parameters += parameter.master.numel();
    pieces.push_back(parameter.placement.piece("model/" + parameter.name, parameter.master.detach()));
  }
  CheckpointOptions options;
  options.folder = out + "/checkpoints";
  options.background = false;
  CheckpointWriter writer(options);
  writer.save(meta, pieces);
  writer.wait();
  imported.checkpoint = list_checkpoints(options.folder).back();
  return imported;
}

}  // namespace tessera
