// write_peft_folder(): an adapter for PEFT.
#include <ATen/ATen.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "datasets/output_folder.h"
#include "recipes/error.h"
#include "trainer/blocks/layers.h"
#include "trainer/files.h"
#include "trainer/hugging_face/peft.h"
#include "trainer/name_map.h"

namespace tessera {
namespace {

using nlohmann::ordered_json;

/// One low-rank part in PEFT's layout.
struct PeftPart {
  std::string name;            // of the layer there
  at::Tensor a, b, magnitude;  // [rank, in], [out, rank], [out]; of an embedding [rank, V], [hidden, rank]
  double scale = 1;
  bool table = false;
};

class AdapterWriter {
 public:
  AdapterWriter(const Model& model, const PeftSetting& setting)
      : setting_(setting), parameters_(model.named_parameters()) {
    for (auto& [name, part] : lora_parts(model)) loras_[name] = part;
    for (const auto& entry : model.name_map()) add_entry(entry);
    collect_whole(model);
  }

  ordered_json config() const;
  std::vector<NamedTensor> tensors() const;

 private:
  void add_entry(const HuggingFaceTensor& entry);
  PeftPart joined(const std::string& name, const std::vector<std::string>& layers) const;
  void collect_whole(const Model& model);
  double alpha_of(const PeftPart& part) const {
    const auto rank = static_cast<double>(part.a.size(0));
    return part.scale * (setting_.options.rank_stabilized ? std::sqrt(rank) : rank);
  }
  bool has_part(const std::string& name) const {
    return std::any_of(parts_.begin(), parts_.end(), [&](const PeftPart& part) { return part.name == name; });
  }

  const PeftSetting& setting_;
  torch::OrderedDict<std::string, at::Tensor> parameters_;
  std::map<std::string, const Lora*> loras_;
  std::vector<PeftPart> parts_;
  std::vector<NamedTensor> whole_;       // by their keys in PEFT's file
  std::set<std::string> saved_modules_;  // whose parameters are trained in full
};

std::string without_end(const std::string& name, const std::string& end) {
  return name.ends_with(end) ? name.substr(0, name.size() - end.size()) : "";
}

void AdapterWriter::add_entry(const HuggingFaceTensor& entry) {
  const std::string name = without_end(entry.key, ".weight");
  std::vector<std::string> layers;
  bool any = false;
  for (const auto& weight : entry.names) {
    layers.push_back(without_end(weight, ".weight"));
    any = any || loras_.contains(layers.back());
  }
  if (name.empty() || !any) return;
  if (layers.size() > 1) return parts_.push_back(joined(name, layers));
  const Lora& lora = *loras_.at(layers.front());
  PeftPart part{name, lora.input().a.detach(), lora.b.detach(),
                {},   lora.config().scale,     layers.front().starts_with("embeddings.")};
  if (part.table) part.a = part.a.t();
  if (lora.magnitude.defined()) part.magnitude = lora.magnitude.detach();
  parts_.push_back(std::move(part));
}

/// Layers that are one there. Where they do not share an `a`, theirs stand below each other, and each `b`
/// beside zeros, with the scales in it.
PeftPart AdapterWriter::joined(const std::string& name, const std::vector<std::string>& layers) const {
  PeftPart result{name, {}, {}, {}, 1, false};
  std::vector<at::Tensor> as, bs, magnitudes;
  bool shared = true, dora = false;
  const Lora* first = nullptr;
  for (const auto& layer : layers) {
    const auto found = loras_.find(layer);
    if (found == loras_.end()) {
      shared = false;
      continue;
    }
    if (!first) first = &found->second->input();
    shared = shared && first == &found->second->input();
    dora = dora || found->second->magnitude.defined();
  }
  for (const auto& layer : layers) {
    const at::Tensor weight = parameters_[layer + ".weight"].detach();
    const auto found = loras_.find(layer);
    if (found == loras_.end()) {
      bs.push_back(at::zeros({weight.size(0), 0}));
      if (dora) magnitudes.push_back(weight.norm(2, 1));
      continue;
    }
    const Lora& lora = *found->second;
    bs.push_back(shared ? lora.b.detach() : lora.b.detach() * lora.config().scale);
    if (!shared || as.empty()) as.push_back(lora.input().a.detach());
    if (dora)
      magnitudes.push_back(lora.magnitude.defined() ? lora.magnitude.detach() : row_norms(weight, lora));
  }
  result.a = at::cat(as);
  result.b = shared ? at::cat(bs) : at::block_diag(bs);
  result.scale = shared ? first->config().scale : 1;
  if (dora) result.magnitude = at::cat(magnitudes);
  return result;
}

/// What is trained beside the low-rank parts: biases, or whole modules.
void AdapterWriter::collect_whole(const Model& model) {
  const auto& trained = setting_.trained;
  const auto ours = [&](const std::string& name) { return parameters_[name]; };
  for (const auto& entry : model.name_map()) {
    const auto is_trained = [&](const std::string& name) {
      return std::find(trained.begin(), trained.end(), name) != trained.end();
    };
    if (std::none_of(entry.names.begin(), entry.names.end(), is_trained)) continue;
    const std::string module = entry.key.substr(0, entry.key.rfind('.'));
    const bool bias = entry.key.ends_with(".bias") && setting_.options.bias != LoraBias::none &&
                      std::find(trained.begin(), trained.end(),
                                without_end(entry.names.front(), ".bias") + ".weight") == trained.end();
    if (has_part(module) && !bias) {
      throw Error(
          fmt::format("{} has a low-rank part and is trained in full too, which PEFT cannot express; valid: "
                      "export --merge",
                      module));
    }
    if (entry.names.front() == "embeddings.word.weight" && !parameters_.contains("classifier.weight")) {
      throw Error(
          "embeddings.word is trained in full, and a head reads it too, which PEFT cannot express; valid: "
          "export --merge");
    }
    if (!bias) saved_modules_.insert(module);
    const std::string key = has_part(module) ? module + ".base_layer.bias" : entry.key;
    whole_.push_back({"base_model.model." + key, to_hugging_face(entry, ours)});
  }
}

std::vector<NamedTensor> AdapterWriter::tensors() const {
  std::vector<NamedTensor> all = whole_;
  for (const PeftPart& part : parts_) {
    const std::string name = "base_model.model." + part.name;
    all.push_back({name + (part.table ? ".lora_embedding_A" : ".lora_A.weight"), part.a.contiguous()});
    all.push_back({name + (part.table ? ".lora_embedding_B" : ".lora_B.weight"), part.b.contiguous()});
    if (part.magnitude.defined())
      all.push_back({name + ".lora_magnitude_vector", part.magnitude.contiguous()});
  }
  return all;
}

ordered_json AdapterWriter::config() const {
  const LoraOptions& options = setting_.options;
  ordered_json ranks = ordered_json::object(), alphas = ordered_json::object(),
               targets = ordered_json::array();
  bool transposed = false;
  for (const PeftPart& part : parts_) {
    targets.push_back(part.name);
    if (part.a.size(0) != options.rank) ranks[part.name] = part.a.size(0);
    if (alpha_of(part) != options.alpha) alphas[part.name] = alpha_of(part);
    transposed = transposed || part.name.starts_with("transformer.");
  }
  ordered_json json{{"peft_type", "LORA"},
                    {"base_model_name_or_path", setting_.base},
                    {"r", options.rank},
                    {"lora_alpha", options.alpha},
                    {"lora_dropout", options.dropout},
                    {"target_modules", targets},
                    {"rank_pattern", ranks},
                    {"alpha_pattern", alphas},
                    {"bias", names_of(options.bias)[static_cast<size_t>(options.bias)]},
                    {"modules_to_save", nullptr},
                    {"use_rslora", options.rank_stabilized},
                    {"use_dora", options.dora},
                    {"fan_in_fan_out", transposed},
                    {"inference_mode", true},
                    {"init_lora_weights", true},
                    {"task_type", nullptr}};
  // PEFT reads the scale as a whole number where it is one.
  if (options.alpha == std::floor(options.alpha)) json["lora_alpha"] = static_cast<int64_t>(options.alpha);
  if (!saved_modules_.empty()) json["modules_to_save"] = saved_modules_;
  if (!setting_.task_type.empty()) json["task_type"] = setting_.task_type;
  return json;
}

}  // namespace

void write_peft_folder(const std::string& folder, const Model& model, const PeftSetting& setting) {
  const AdapterWriter writer(model, setting);
  OutputFolder out(folder);
  const std::string text = writer.config().dump(2) + "\n";
  OpenFile config(out.work() + "/adapter_config.json", O_WRONLY | O_CREAT | O_TRUNC);
  config.write(0, text.data(), static_cast<int64_t>(text.size()));
  config.sync();
  write_safetensors(out.work() + "/adapter_model.safetensors", writer.tensors());
  out.publish("adapter_config.json");
  out.publish("adapter_model.safetensors");
}

}  // namespace tessera
