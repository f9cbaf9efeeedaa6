// PeftAdapter: an adapter that PEFT wrote.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <regex>
#include <set>

#include "datasets/strict_json.h"
#include "recipes/error.h"
#include "trainer/blocks/lora.h"
#include "trainer/hugging_face/folder.h"
#include "trainer/hugging_face/peft.h"
#include "trainer/name_map.h"
#include "trainer/parameters.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr const char* config_name = "adapter_config.json";
constexpr const char* adapter_name = "adapter_model.safetensors";
const std::string prefix = "base_model.model.";

/// Options of PEFT that change what the adapter computes, or how its tensors are stored.
const std::vector<std::string> unknown_to_us = {"alora_invocation_tokens",
                                                "arrow_config",
                                                "layer_replication",
                                                "lora_bias",
                                                "megatron_config",
                                                "target_parameters",
                                                "trainable_token_indices",
                                                "use_bdlora",
                                                "use_qalora",
                                                "kasa_config",
                                                "monteclora_config",
                                                "velora_config"};

bool is_set(const ordered_json& value) {
  return !(value.is_null() || (value.is_boolean() && !value.get<bool>()) ||
           (value.is_structured() && value.empty()));
}

template <class T>
T value_of(const ordered_json& json, const std::string& key, const T& standard, const std::string& where) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return standard;
  bool fits = false;
  if constexpr (std::is_same_v<T, bool>)
    fits = found->is_boolean();
  else if constexpr (std::is_same_v<T, int64_t>)
    fits = found->is_number_integer();
  else if constexpr (std::is_same_v<T, double>)
    fits = found->is_number();
  else
    fits = found->is_string();
  if (!fits) throw Error(fmt::format("{}: {}: {} is of the wrong type", where, key, shown(*found)));
  return found->template get<T>();
}

std::map<std::string, double> pattern_of(const ordered_json& json, const std::string& key,
                                         const std::string& where) {
  std::map<std::string, double> pattern;
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return pattern;
  if (!found->is_object()) throw Error(fmt::format("{}: {} is no section", where, key));
  for (const auto& [name, value] : found->items()) {
    if (!value.is_number()) throw Error(fmt::format("{}: {}: '{}' is no number", where, key, name));
    pattern[name] = value.get<double>();
  }
  return pattern;
}

/// PEFT's rule: the first pattern that is the end of the name, after a dot or as a whole.
double from_pattern(const std::map<std::string, double>& pattern, const std::string& name, double standard) {
  for (const auto& [key, value] : pattern) {
    try {
      if (std::regex_match(name, std::regex("(.*\\.)?(" + key + ")"))) return value;
    } catch (const std::regex_error&) {
      throw Error(fmt::format("{}: '{}' is no pattern", config_name, key));
    }
  }
  return standard;
}

bool take_end(std::string& text, std::string_view end) {
  if (!text.ends_with(end)) return false;
  text.resize(text.size() - end.size());
  return true;
}

/// Copies that some versions save beside the trained ones.
bool is_twin(const std::string& key) {
  return key.find(".modules_to_save.") != std::string::npos ||
         key.find(".original_module.") != std::string::npos;
}

}  // namespace

PeftAdapter PeftAdapter::open(const std::string& folder) {
  const std::string config = folder + "/" + config_name, tensors = folder + "/" + adapter_name;
  if (!fs::exists(config)) {
    throw Error(
        fmt::format("'{}' holds no {}; valid: a folder that PEFT's save_pretrained or tessera export left",
                    folder, config_name));
  }
  if (!fs::exists(tensors)) {
    const bool old = fs::exists(folder + "/adapter_model.bin");
    throw Error(fmt::format(
        "{}: holds no {}{}", folder, adapter_name,
        old ? "; adapter_model.bin is not read, since it may run any program: save it anew with PEFT" : ""));
  }
  PeftAdapter adapter(SafetensorsFile::open(tensors));
  adapter.folder_ = folder;
  const ordered_json json = read_json_file(config);
  if (!json.is_object()) throw Error(config + ": is no object");
  const auto type = value_of<std::string>(json, "peft_type", "", config);
  if (type != "LORA") throw Error(fmt::format("{}: peft_type is '{}'; valid: LORA", config, type));
  for (const auto& key : unknown_to_us) {
    if (json.contains(key) && is_set(json[key]))
      throw Error(fmt::format("{}: {}: {} is not supported", config, key, shown(json[key])));
  }
  adapter.rank_ = value_of<int64_t>(json, "r", 8, config);
  adapter.alpha_ = value_of<double>(json, "lora_alpha", 8, config);
  adapter.rank_pattern_ = pattern_of(json, "rank_pattern", config);
  adapter.alpha_pattern_ = pattern_of(json, "alpha_pattern", config);
  adapter.rank_stabilized_ = value_of(json, "use_rslora", false, config);
  adapter.dora_ = value_of(json, "use_dora", false, config);
  const auto bias = value_of<std::string>(json, "bias", "none", config);
  const auto names = names_of(LoraBias::none);
  const auto found = std::find(names.begin(), names.end(), bias);
  if (found == names.end()) throw Error(fmt::format("{}: bias: '{}'; valid: {}", config, bias, join(names)));
  adapter.bias_ = static_cast<LoraBias>(found - names.begin());
  return adapter;
}

/// The tensors as low-rank parts, by the layer's name there, and as whole parameters, by their key.
void PeftAdapter::sort_out(const Model& model, std::map<std::string, Part>& parts,
                           std::map<std::string, at::Tensor>& whole) const {
  const std::string family = model.causal() ? "gpt" : "bert";
  for (const auto& [key, entry] : file_.entries()) {
    if (is_twin(key)) continue;
    if (!key.starts_with(prefix))
      throw Error(fmt::format("{}: '{}' does not begin with {}", file_.path(), key, prefix));
    std::string name = key.substr(prefix.size());
    at::Tensor Part::*slot = nullptr;
    bool table = false;
    if (take_end(name, ".lora_A.weight"))
      slot = &Part::a;
    else if (take_end(name, ".lora_B.weight"))
      slot = &Part::b;
    else if (take_end(name, ".lora_embedding_A"))
      slot = &Part::a, table = true;
    else if (take_end(name, ".lora_embedding_B"))
      slot = &Part::b, table = true;
    else if (take_end(name, ".lora_magnitude_vector") || take_end(name, ".lora_magnitude_vector.weight"))
      slot = &Part::magnitude;
    const at::Tensor value = file_.read(key).to(at::kFloat);
    if (!slot) {
      if (const size_t at = name.find(".base_layer."); at != std::string::npos)
        name.erase(at, std::string(".base_layer").size());
      if (!is_passed_over(name)) whole[current_key(name, family)] = value;
      continue;
    }
    // Keys are told apart by their first word: give a layer's name the end that weights have.
    std::string layer = current_key(name + ".weight", family);
    take_end(layer, ".weight");
    Part& part = parts[layer];
    part.*slot = value;
    part.table = part.table || table;
  }
  for (const auto& [name, part] : parts) {
    if (!part.a.defined() || !part.b.defined() || part.a.dim() != 2 || part.b.dim() != 2 ||
        part.a.size(0) != part.b.size(1)) {
      throw Error(fmt::format("{}: the parts of '{}' are not two matrices of one rank", file_.path(), name));
    }
    if (part.table && part.magnitude.defined())
      throw Error(fmt::format("{}: '{}': DoRA of an embedding is not supported", file_.path(), name));
  }
}

LoraOptions PeftAdapter::options(const Model& model, const LoraOptions& given) const {
  std::map<std::string, Part> parts;
  std::map<std::string, at::Tensor> whole;
  sort_out(model, parts, whole);
  LoraOptions options = given;
  options.rank = rank_;
  options.alpha = alpha_;
  options.rank_stabilized = rank_stabilized_;
  options.dora = dora_;
  options.bias = bias_;
  options.targets.clear();
  options.patterns.clear();
  const auto targets = lora_targets(model, {});
  for (const auto& [name, part] : parts) {
    const auto target =
        std::find_if(targets.begin(), targets.end(),
                     [&, &path = name](const LoraTarget& each) { return each.hugging_face == path; });
    if (target == targets.end()) {
      std::vector<std::string> known;
      for (const auto& each : targets) known.push_back(each.hugging_face);
      throw Error(fmt::format("{}: the model has no layer '{}'; there are: {}", file_.path(), name,
                              join(name_patterns(known))));
    }
    options.targets.push_back(target->name);
    const double alpha = from_pattern(alpha_pattern_, name, alpha_);
    if (part.a.size(0) == rank_ && alpha == alpha_) continue;
    options.patterns.push_back({target->name, part.a.size(0), alpha});
  }
  return options;
}

std::map<std::string, at::Tensor> PeftAdapter::parameters(const Model& model) const {
  std::map<std::string, Part> parts;
  std::map<std::string, at::Tensor> whole, result;
  sort_out(model, parts, whole);
  const auto own = model.named_parameters();
  const auto put = [&](const std::string& name, const at::Tensor& value) {
    const at::Tensor* place = own.find(name);
    if (!place) throw Error(fmt::format("{}: the model has no place for {}", file_.path(), name));
    if (place->sizes() != value.sizes()) {
      throw Error(fmt::format("{}: {} has shape {}, but the model needs {}", file_.path(), name,
                              value.sizes().vec(), place->sizes().vec()));
    }
    result[name] = value.contiguous();
  };
  for (const auto& target : lora_targets(model, {})) {
    const auto found = parts.find(target.hugging_face);
    if (target.hugging_face.empty() || found == parts.end()) continue;
    const Part& part = found->second;
    const auto layers = static_cast<int64_t>(target.layers.size());
    const std::string joined = target.layers.front().substr(0, target.layers.front().rfind('.'));
    put((layers > 1 ? joined : target.layers.front()) + ".lora.a", part.table ? part.a.t() : part.a);
    for (int64_t i = 0; i < layers; ++i) {
      const std::string& layer = target.layers[static_cast<size_t>(i)];
      if (part.b.size(0) % layers != 0)
        throw Error(fmt::format("{}: '{}' has {} outputs, not {} times as many", file_.path(),
                                target.hugging_face, part.b.size(0), layers));
      put(layer + ".lora.b", part.b.chunk(layers)[static_cast<size_t>(i)]);
      if (part.magnitude.defined())
        put(layer + ".lora.magnitude", part.magnitude.chunk(layers)[static_cast<size_t>(i)]);
    }
  }
  std::map<std::string, at::Tensor> filled;
  const auto ours = [&](const std::string& name) {
    at::Tensor& value = filled[name];
    if (!value.defined()) value = at::empty(own[name].sizes());
    return value;
  };
  const NameMap map = model.name_map();
  for (const auto& [key, value] : whole) {
    const auto entry = std::find_if(
        map.begin(), map.end(), [&, &path = key](const HuggingFaceTensor& each) { return each.key == path; });
    if (entry == map.end())
      throw Error(fmt::format("{}: the model has no place for '{}'", file_.path(), key));
    from_hugging_face(*entry, value, ours);
  }
  result.merge(filled);
  return result;
}

void merge_lora(Model& model) {
  const at::NoGradGuard no_grad;
  const auto parameters = model.named_parameters();
  const bool has_head =
      parameters.contains("prediction.bias") || (model.causal() && !parameters.contains("classifier.weight"));
  for (const auto& [layer, part] : lora_parts(model)) {
    const at::Tensor* weight = parameters.find(layer + ".weight");
    if (!weight) continue;  // what several layers share goes with each of them
    const bool table = layer.starts_with("embeddings.");
    if (table && has_head) continue;
    const at::Tensor product = table ? at::mm(part->a, part->b.t()) : at::mm(part->b, part->input().a);
    const at::Tensor norms = part->magnitude.defined() ? row_norms(*weight, *part) : at::Tensor();
    at::Tensor target = weight->detach();
    target.add_(product, part->config().scale);
    if (norms.defined()) target.mul_((part->magnitude / norms).unsqueeze(1));
  }
  remove_lora(model, /*tables=*/!has_head);
}

void merge_adapter(Model& model, const PeftAdapter& adapter) {
  const at::NoGradGuard no_grad;
  const LoraOptions options = adapter.options(model, {});
  give_lora(model, options);
  const auto own = model.named_parameters();
  for (const auto& [name, value] : adapter.parameters(model)) {
    const at::Tensor& place = own[name];
    if (place.storage().nbytes() == 0) {
      place.set_data(value.clone());
    } else {
      place.detach().copy_(value);
    }
  }
  merge_lora(model);
}

}  // namespace tessera
