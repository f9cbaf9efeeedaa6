#include "trainer/start_model.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "recipes/error.h"
#include "recipes/said_at.h"
#include "trainer/adapt/adapt.h"
#include "trainer/adapt/freeze.h"
#include "trainer/adapt/lora.h"
#include "trainer/catalog.h"
#include "trainer/checkpoint.h"
#include "trainer/checkpoint_format.h"
#include "trainer/hugging_face/folder.h"
#include "trainer/hugging_face/peft.h"
#include "trainer/placement.h"

namespace tessera {
namespace {

class CheckpointStart : public StartModel {
 public:
  explicit CheckpointStart(const std::string& folder)
      : StartModel(folder),
        reader_(CheckpointReader::open(folder)),
        recipe_(read_recipe_text(reader_.meta().recipe, reader_.folder() + "/checkpoint.h5", {}, catalog())) {
  }

  Choice section() const override { return recipe_.model; }
  TokenizerPtr tokenizer() const override {
    return Tokenizer::parse(reader_.meta().tokenizer, reader_.folder() + "/checkpoint.h5");
  }
  std::string hash() const override {
    checkpoint::Hash hash;
    for (const auto& [name, info] : reader_.tensors()) {
      if (!name.starts_with(group_)) continue;
      hash.add(name.data(), static_cast<int64_t>(name.size()));
      for (const auto& piece : info.pieces) hash.add(&piece.checksum, sizeof(piece.checksum));
    }
    return fmt::format("{:016x}", hash.value());
  }

 protected:
  bool has(const Model&, const std::string& name) const override { return reader_.has(group_ + name); }

  std::vector<int64_t> shape(const Model&, const std::string& name) const override {
    return reader_.info(group_ + name).shape;
  }

  void check_shape(const Model& model, const std::string& name, at::IntArrayRef wanted) const override {
    const std::vector<int64_t> found = shape(model, name);
    if (wanted == at::IntArrayRef(found)) return;
    throw Error(fmt::format("{}: {} has shape {}, but the model needs {}", reader_.folder(), name, found,
                            wanted.vec()));
  }

  at::Tensor read(const Model&, const Parameter& parameter) const override {
    at::Tensor part = at::empty(parameter.master.sizes(), at::kFloat);
    reader_.read_into(group_ + parameter.name, parameter.placement.offset, part);
    return part;
  }

  std::vector<std::string> unused(const Model& model) const override {
    std::vector<std::string> names;
    const auto parameters = model.named_parameters();
    for (const auto& [name, info] : reader_.tensors()) {
      if (!name.starts_with(group_)) continue;
      const std::string own = name.substr(group_.size());
      if (!parameters.contains(own)) names.push_back(own);
    }
    return names;
  }

 private:
  const std::string group_ = "model/";
  CheckpointReader reader_;
  Recipe recipe_;
};

class HuggingFaceStart : public StartModel {
 public:
  explicit HuggingFaceStart(const std::string& folder)
      : StartModel(folder), files_(HuggingFaceFolder::open(folder)) {}

  Choice section() const override { return files_.model().model; }
  TokenizerPtr tokenizer() const override { return files_.tokenizer(); }
  std::string hash() const override {
    checkpoint::Hash hash;
    for (const std::string& key : files_.keys()) {
      const at::Tensor tensor = files_.read(key).contiguous();
      hash.add(key.data(), static_cast<int64_t>(key.size()));
      hash.add(tensor.const_data_ptr(), static_cast<int64_t>(tensor.nbytes()));
    }
    return fmt::format("{:016x}", hash.value());
  }

 protected:
  bool has(const Model& model, const std::string& name) const override {
    const Place* place = find(model, name);
    return place && files_.has(place->tensor.key);
  }

  std::vector<int64_t> shape(const Model& model, const std::string& name) const override {
    const Place& place = *find(model, name);
    std::vector<int64_t> shape = files_.shape(place.tensor.key);
    if (place.tensor.transposed) std::reverse(shape.begin(), shape.end());
    if (!shape.empty()) shape[0] /= static_cast<int64_t>(place.tensor.names.size());
    return shape;
  }

  void check_shape(const Model& model, const std::string& name, at::IntArrayRef wanted) const override {
    const HuggingFaceTensor& tensor = find(model, name)->tensor;
    std::vector<int64_t> expected = wanted.vec();
    expected.at(0) *= static_cast<int64_t>(tensor.names.size());  // those joined are alike
    if (tensor.transposed) std::reverse(expected.begin(), expected.end());
    const std::vector<int64_t> found = files_.shape(tensor.key);
    if (found == expected) return;
    throw Error(
        fmt::format("{}: {} has shape {}, but the model needs {}", folder(), tensor.key, found, expected));
  }

  at::Tensor read(const Model& model, const Parameter& parameter) const override {
    const Place& place = *find(model, parameter.name);
    at::Tensor part = files_.read(place.tensor.key);
    if (place.tensor.transposed && part.dim() == 2) part = part.t();
    const Placement& wanted = parameter.placement;
    part = part.narrow(0, place.index * wanted.global_shape[0], wanted.global_shape[0]);
    for (int64_t dim = 0; dim < part.dim(); ++dim) {
      part = part.narrow(dim, wanted.offset[static_cast<size_t>(dim)], parameter.master.size(dim));
    }
    return part;
  }

  std::vector<std::string> unused(const Model& model) const override {
    std::vector<std::string> keys = files_.keys();
    for (const auto& entry : model.name_map()) std::erase(keys, entry.key);
    return keys;
  }

 private:
  /// Which tensor of the folder holds a parameter, and how many others lie before it there.
  struct Place {
    HuggingFaceTensor tensor;
    int64_t index = 0;
  };
  /// Null where the layout has no such parameter.
  const Place* find(const Model& model, const std::string& name) const {
    if (places_.empty()) {
      for (const auto& entry : model.name_map()) {
        for (size_t i = 0; i < entry.names.size(); ++i) {
          places_.emplace(entry.names[i], Place{entry, static_cast<int64_t>(i)});
        }
      }
    }
    const auto found = places_.find(name);
    return found == places_.end() ? nullptr : &found->second;
  }

  HuggingFaceFolder files_;
  mutable std::map<std::string, Place> places_;  // by parameter; made once, as models have thousands
};

}  // namespace

std::unique_ptr<StartModel> StartModel::open(const std::string& folder) {
  if (std::filesystem::exists(folder + "/config.json")) return std::make_unique<HuggingFaceStart>(folder);
  if (!std::filesystem::exists(folder)) {
    throw Error(
        fmt::format("'{}' does not exist; valid: a run's folder, a checkpoint, or a folder with a "
                    "config.json and model.safetensors",
                    folder));
  }
  return std::make_unique<CheckpointStart>(folder);
}

StartModel::Fit StartModel::fit(const Model& model) const {
  Fit fit;
  std::vector<std::string> missing;
  for (const auto& [name, tensor] : parameters_once(model)) {
    // Without the others the model would be a random one.
    if (has(model, name)) {
      check_shape(model, name, tensor.sizes());
    } else {
      (is_head(name) ? fit.fresh : missing).push_back(name);
    }
  }
  if (!missing.empty()) {
    throw Error(fmt::format("{}: holds no whole model: it lacks {}", folder_, join(name_patterns(missing))));
  }
  fit.unused = unused(model);
  return fit;
}

void StartModel::load(const Model& model, const std::vector<Parameter>& parameters) const {
  const at::NoGradGuard no_grad;
  for (const Parameter& parameter : parameters) {
    if (parameter.master.numel() == 0 || !has(model, parameter.name)) continue;
    parameter.master.detach().copy_(read(model, parameter));
  }
  refresh_working(parameters);
}

void StartModel::load_magnitudes(const Model& model, const std::vector<Parameter>& parameters) const {
  const at::NoGradGuard no_grad;
  const std::string end = ".lora.magnitude";
  for (const Parameter& parameter : parameters) {
    if (!parameter.name.ends_with(end) || parameter.master.numel() == 0) continue;
    // Rows are whole here, however they are divided among ranks.
    Parameter weight;
    weight.name = parameter.name.substr(0, parameter.name.size() - end.size()) + ".weight";
    weight.placement.global_shape = shape(model, weight.name);
    weight.placement.offset = {parameter.placement.offset.at(0), 0};
    weight.master = at::empty({parameter.master.size(0), weight.placement.global_shape[1]});
    const at::Tensor rows = read(model, weight).to(at::kFloat);
    parameter.master.detach().copy_(rows.norm(2, /*dim=*/1));
  }
  refresh_working(parameters);
}

std::unique_ptr<StartModel> open_start(const Recipe& recipe) {
  const auto folder = recipe.model.text("from");
  if (!folder) return nullptr;
  return said_at(recipe, "model.from", [&] { return StartModel::open(*folder); });
}

std::map<std::string, at::Tensor> adapt_or_follow(Model& model, Recipe& recipe,
                                                  const std::vector<std::string>& fresh, int64_t step) {
  auto* options = recipe.adapt.get_if<LoraOptions>();
  if (!options || !options->from) {
    adapt(model, recipe, fresh, step);
    return {};
  }
  return said_at(recipe, "adapt.from", [&] {
    const PeftAdapter adapter = PeftAdapter::open(*options->from);
    *options = adapter.options(model, *options);
    adapt(model, recipe, fresh, step);
    return adapter.parameters(model);
  });
}

}  // namespace tessera
