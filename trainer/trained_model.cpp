#include "trainer/trained_model.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "recipes/error.h"
#include "trainer/adapt/adapt.h"
#include "trainer/blocks/lora.h"
#include "trainer/catalog.h"
#include "trainer/hugging_face/peft.h"
#include "trainer/models/models.h"
#include "trainer/objectives/objectives.h"
#include "trainer/start_model.h"

namespace tessera {

namespace {

std::unique_ptr<StartModel> open_base(const TrainedModel& trained, const LoadOptions& options) {
  const std::string folder = options.base.value_or(trained.recipe.model.text("from").value_or(""));
  const std::string which = fmt::format("{}: is beside the base in '{}'", trained.checkpoint, folder);
  std::unique_ptr<StartModel> base;
  try {
    base = StartModel::open(folder);
  } catch (const Error& error) {
    throw Error(fmt::format("{}, which cannot be read; valid: --base FOLDER\n{}", which, error.what()));
  }
  const auto numbers = nlohmann::json::parse(trained.meta.state_json, nullptr, false);
  if (!numbers.is_object() || numbers.value("base", "") != base->hash()) {
    throw Error(which +
                ", which holds another model now; valid: --base FOLDER with the one it was trained on");
  }
  return base;
}

void read_parameters(const CheckpointReader& reader, const std::vector<Parameter>& parameters, bool averaged,
                     bool beside_base) {
  bool any_average = false;
  for (const Parameter& parameter : parameters) {
    const bool average = averaged && reader.has("ema/" + parameter.name);
    any_average = any_average || average;
    const std::string name = (average ? "ema/" : "model/") + parameter.name;
    if (beside_base && !reader.has(name)) continue;
    reader.read_into(name, parameter.placement.offset, parameter.master);
  }
  if (averaged && !any_average) {
    throw Error(fmt::format("{}: this run kept no moving average (train.ema)", reader.folder()));
  }
}

}  // namespace

std::vector<Parameter> whole_parameters(const Model& model) {
  std::vector<Parameter> all;
  for (const auto& [name, tensor] : parameters_once(model)) {
    Parameter parameter{.name = name, .working = tensor, .master = tensor.detach()};
    parameter.placement.global_shape = tensor.sizes().vec();
    parameter.placement.offset.assign(parameter.placement.global_shape.size(), 0);
    all.push_back(std::move(parameter));
  }
  return all;
}

TrainedModel load_trained_model(const std::string& path, const LoadOptions& options) {
  const CheckpointReader reader = CheckpointReader::open(path);
  TrainedModel trained;
  trained.checkpoint = reader.folder();
  trained.meta = reader.meta();
  const std::string origin = reader.folder() + "/checkpoint.h5";
  trained.recipe = read_recipe_text(reader.meta().recipe, origin, {}, catalog());
  trained.tokenizer = Tokenizer::parse(reader.meta().tokenizer, origin);
  trained.objective =
      make_objective(trained.recipe.objective, objective_setting(trained.recipe, trained.tokenizer));
  trained.model =
      make_model(trained.recipe.model, {trained.tokenizer->vocab_size(), trained.objective->heads()});
  std::unique_ptr<StartModel> base;
  if (keeps_base(trained.recipe)) {
    base = open_base(trained, options);
    adapt(*trained.model, trained.recipe, base->fit(*trained.model).fresh);
  }
  trained.model->allocate();
  const auto parameters = whole_parameters(*trained.model);
  if (base) base->load(*trained.model, parameters);
  read_parameters(reader, parameters, options.averaged, base != nullptr);
  for (const auto& parameter : parameters) {
    if (base && !is_low_rank(parameter.name) && reader.has("model/" + parameter.name))
      trained.in_full.push_back(parameter.name);
  }
  for (const auto& folder : options.adapters) merge_adapter(*trained.model, PeftAdapter::open(folder));
  trained.model->eval();
  if (!options.device.is_cpu()) trained.model->to(options.device);
  return trained;
}

}  // namespace tessera
