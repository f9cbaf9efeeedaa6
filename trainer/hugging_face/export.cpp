// write_hugging_face_folder()
#include <ATen/ATen.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "datasets/output_folder.h"
#include "recipes/error.h"
#include "trainer/adapt/lora.h"
#include "trainer/files.h"
#include "trainer/hugging_face/folder.h"
#include "trainer/hugging_face/heads.h"
#include "trainer/name_map.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

class FolderWriter {
 public:
  explicit FolderWriter(const std::string& path) : path_(path), folder_(path) {}

  void text(const std::string& name, const std::string& content) {
    const std::string path = folder_.work() + "/" + name;
    OpenFile file(path, O_WRONLY | O_CREAT | O_TRUNC);
    file.write(0, content.data(), static_cast<int64_t>(content.size()));
    file.sync();
    names_.push_back(name);
  }
  void json(const std::string& name, const ordered_json& content) { text(name, content.dump(2) + "\n"); }
  void tensors(const std::string& name, const std::vector<NamedTensor>& content) {
    write_safetensors(folder_.work() + "/" + name, content);
    names_.push_back(name);
  }
  /// Weights of an earlier export go: transformers would read them beside, or instead.
  void publish() {
    for (const auto& entry : fs::directory_iterator(path_)) {
      const std::string name = entry.path().filename();
      const bool weights = name == "model.safetensors" || name == "model.safetensors.index.json" ||
                           (name.starts_with("model-") && name.ends_with(".safetensors"));
      if (weights && std::find(names_.begin(), names_.end(), name) == names_.end()) fs::remove(entry.path());
    }
    for (const auto& name : names_) folder_.publish(name);
  }

 private:
  std::string path_;
  OutputFolder folder_;
  std::vector<std::string> names_;
};

/// In files of up to `bytes` each, in the order of the name map; at least one tensor in each.
std::vector<std::vector<NamedTensor>> cut(const std::vector<NamedTensor>& tensors, int64_t bytes) {
  std::vector<std::vector<NamedTensor>> files(1);
  int64_t filled = 0;
  for (const auto& each : tensors) {
    const auto size = static_cast<int64_t>(each.tensor.nbytes());
    if (!files.back().empty() && filled + size > bytes) {
      files.emplace_back();
      filled = 0;
    }
    filled += size;
    files.back().push_back(each);
  }
  return files;
}

void write_weights(FolderWriter& folder, const std::vector<NamedTensor>& tensors, int64_t shard_bytes) {
  const auto files = cut(tensors, shard_bytes);
  if (files.size() == 1) return folder.tensors("model.safetensors", files.front());
  ordered_json index{{"metadata", {{"total_size", 0}}}, {"weight_map", ordered_json::object()}};
  size_t total = 0;
  for (size_t i = 0; i < files.size(); ++i) {
    const std::string name = fmt::format("model-{:05d}-of-{:05d}.safetensors", i + 1, files.size());
    folder.tensors(name, files[i]);
    for (const auto& each : files[i]) {
      total += each.tensor.nbytes();
      index["weight_map"][each.name] = name;
    }
  }
  index["metadata"]["total_size"] = total;
  folder.json("model.safetensors.index.json", index);
}

ordered_json special_tokens(const Tokenizer& tokenizer) {
  const SpecialTokens& special = tokenizer.special();
  ordered_json json = ordered_json::object();
  const auto add = [&](const char* key, int32_t id) {
    if (id >= 0) json[key] = tokenizer.token_of(id);
  };
  add("bos_token", special.begin >= 0 ? special.begin : special.cls < 0 ? special.end : -1);
  add("eos_token", special.end);
  add("unk_token", special.unknown);
  add("sep_token", special.sep);
  add("pad_token", special.pad);
  add("cls_token", special.cls);
  add("mask_token", special.mask);
  return json;
}

/// `pads`: batches are padded, if need be with the end token, as config.json says.
void write_tokenizer(FolderWriter& folder, const Tokenizer& tokenizer, int64_t max_positions, bool pads) {
  folder.text("tokenizer.json", tokenizer.json());
  ordered_json config = special_tokens(tokenizer);
  if (pads && !config.contains("pad_token") && config.contains("eos_token")) {
    config["pad_token"] = config["eos_token"];
  }
  folder.json("special_tokens_map.json", config);
  config["model_max_length"] = max_positions;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  folder.json("tokenizer_config.json", config);
}

/// A table of tokens with a low-rank part: the part belongs to the embedding alone, so the head gets the
/// table as it was. Returns whether there is one.
bool untie(std::vector<NamedTensor>& tensors, const Model& model) {
  for (const auto& [layer, part] : lora_parts(model)) {
    if (!layer.starts_with("embeddings.")) continue;
    for (size_t i = 0; i < tensors.size(); ++i) {
      const bool bert = tensors[i].name == "bert.embeddings.word_embeddings.weight";
      if (!bert && tensors[i].name != "transformer.wte.weight" &&
          tensors[i].name != "transformer.tokens_embed.weight") {
        continue;
      }
      const at::Tensor table = tensors[i].tensor;
      const at::Tensor product = at::mm(part->a.detach(), part->b.detach().t());
      tensors[i].tensor = table + (product * part->config().scale).to(table.scalar_type());
      tensors.push_back({bert ? "cls.predictions.decoder.weight" : "lm_head.weight", table});
      if (bert)
        tensors.push_back({"cls.predictions.decoder.bias", model.named_parameters()["prediction.bias"]});
      return true;
    }
  }
  return false;
}

}  // namespace

void write_hugging_face_folder(const std::string& path, const Model& model, const Choice& section,
                               const Tokenizer& tokenizer, const ExportOptions& options) {
  const auto parameters = model.named_parameters();
  const auto ours = [&](const std::string& name) { return parameters[name]; };
  std::vector<NamedTensor> tensors;
  for (const HuggingFaceTensor& entry : model.name_map()) {
    tensors.push_back({entry.key, to_hugging_face(entry, ours).to(options.dtype)});
  }
  const bool untied = untie(tensors, model);
  ConfigSetting setting;
  setting.tied = !untied;
  setting.vocab_size = model.vocab_size();
  setting.next_sentence = parameters.contains("next_sentence.weight");
  setting.dtype = options.dtype == at::kBFloat16 ? "bfloat16"
                  : options.dtype == at::kHalf   ? "float16"
                                                 : "float32";
  setting.special = tokenizer.special();
  setting.objective = options.objective;
  FolderWriter folder(path);
  folder.json("config.json", hugging_face_config(section, setting));
  write_weights(folder, tensors, options.shard_bytes);
  write_tokenizer(folder, tokenizer, model.max_positions(), has_task_head(options.objective));
  folder.publish();
}

}  // namespace tessera
