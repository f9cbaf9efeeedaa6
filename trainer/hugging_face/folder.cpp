#include "trainer/hugging_face/folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "datasets/strict_json.h"
#include "recipes/error.h"
#include "trainer/name_map.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr const char* weights_file = "model.safetensors";
constexpr const char* index_file = "model.safetensors.index.json";
constexpr int64_t longest_json = 64 << 20;

void replace_end(std::string& text, std::string_view end, std::string_view with) {
  if (text.ends_with(end)) text.replace(text.size() - end.size(), end.size(), with);
}

[[noreturn]] void fail_without_weights(const std::string& path) {
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (!fs::exists(fs::path(path) / name)) continue;
    throw Error(fmt::format(
        "{}/{}: PyTorch files are not read, since they may run any program; save the model anew with "
        "transformers: AutoModel.from_pretrained('{}').save_pretrained('{}-safetensors')",
        path, name, path, path));
  }
  throw Error(
      fmt::format("{}: holds no weights; valid: a folder with {} or {}", path, weights_file, index_file));
}

}  // namespace

ordered_json read_json_file(const std::string& path) {
  std::error_code failure;
  const auto size = fs::file_size(path, failure);
  std::ifstream file(path, std::ios::binary);
  if (failure || !file) throw Error(fmt::format("{}: cannot be read", path));
  if (size > static_cast<uintmax_t>(longest_json)) {
    throw Error(
        fmt::format("{}: {} bytes are too many for such a file (at most {})", path, size, longest_json));
  }
  std::stringstream text;
  text << file.rdbuf();
  return parse_strict_json(text.str(), path);
}

bool is_passed_over(const std::string& key) {
  return key.ends_with(".position_ids") || key.ends_with(".attn.bias") ||
         key.ends_with(".attn.masked_bias") || key == "lm_head.weight" ||
         key == "cls.predictions.decoder.weight" || key == "cls.predictions.decoder.bias";
}

std::string current_key(std::string key, const std::string& family) {
  replace_end(key, "LayerNorm.gamma", "LayerNorm.weight");
  replace_end(key, "LayerNorm.beta", "LayerNorm.bias");
  const auto begins = [&](const std::vector<const char*>& words) {
    return std::any_of(words.begin(), words.end(), [&](const char* word) { return key.starts_with(word); });
  };
  if (family == "bert" && begins({"embeddings.", "encoder.", "pooler."})) return "bert." + key;
  if (family == "gpt" && begins({"wte.", "wpe.", "h.", "ln_f.", "tokens_embed.", "positions_embed."})) {
    return "transformer." + key;
  }
  return key;
}

HuggingFaceFolder HuggingFaceFolder::open(const std::string& path) {
  HuggingFaceFolder folder;
  folder.path_ = path;
  const std::string config = path + "/config.json";
  if (!fs::is_directory(path)) throw Error(path + ": no folder; valid: one with a config.json");
  if (!fs::exists(config)) throw Error(path + ": has no config.json");
  folder.model_ = read_hugging_face_config(read_json_file(config), config);
  folder.open_weights();
  if (fs::exists(path + "/tokenizer.json")) folder.tokenizer_ = Tokenizer::load(path + "/tokenizer.json");
  return folder;
}

void HuggingFaceFolder::open_weights() {
  const std::string index_path = path_ + "/" + index_file;
  if (!fs::exists(index_path)) {
    if (!fs::exists(path_ + "/" + weights_file)) fail_without_weights(path_);
    return add_file(weights_file);
  }
  const ordered_json index = read_json_file(index_path);
  const auto map = index.find("weight_map");
  if (map == index.end() || !map->is_object()) throw Error(index_path + ": has no weight_map");
  std::set<std::string> names;
  for (const auto& [key, name] : map->items()) {
    const std::string file = name.is_string() ? name.get<std::string>() : "";
    if (file.empty() || fs::path(file).filename() != file) {
      throw Error(fmt::format("{}: '{}' lies in {}, which is no file's name", index_path, key, shown(name)));
    }
    names.insert(file);
  }
  for (const auto& name : names) add_file(name);
  for (const auto& [key, name] : map->items()) {
    const bool there = std::any_of(
        files_.begin(), files_.end(), [&, &file_name = name, &tensor = key](const SafetensorsFile& file) {
          return file.path() == path_ + "/" + file_name.get<std::string>() && file.entries().contains(tensor);
        });
    if (!there) throw Error(fmt::format("{}: '{}' is not in {}", index_path, key, name.get<std::string>()));
  }
}

void HuggingFaceFolder::add_file(const std::string& name) {
  files_.push_back(SafetensorsFile::open(path_ + "/" + name));
  for (const auto& [key, entry] : files_.back().entries()) {
    if (is_passed_over(key)) continue;
    const std::string current = current_key(key, model_.model.name());
    const auto [place, fresh] = places_.emplace(current, TensorPlace{files_.size() - 1, key});
    if (fresh) continue;
    throw Error(fmt::format("{}/{}: '{}' is '{}' of {} once more", path_, name, key, place->second.key,
                            files_[place->second.file].path()));
  }
}

std::vector<std::string> HuggingFaceFolder::keys() const {
  std::vector<std::string> all;
  for (const auto& [key, place] : places_) all.push_back(key);
  return all;
}

std::vector<int64_t> HuggingFaceFolder::shape(const std::string& key) const {
  const TensorPlace& place = places_.at(key);
  return files_[place.file].entries().at(place.key).shape;
}

at::Tensor HuggingFaceFolder::read(const std::string& key) const {
  const TensorPlace& place = places_.at(key);
  return files_[place.file].read(place.key);
}

std::vector<std::string> HuggingFaceFolder::load(Model& model) const {
  const auto parameters = model.named_parameters();
  const auto ours = [&](const std::string& name) { return parameters[name]; };
  std::vector<std::string> missing;
  std::set<std::string> unknown;
  for (const auto& [key, place] : places_) unknown.insert(key);
  for (const HuggingFaceTensor& entry : model.name_map()) {
    unknown.erase(entry.key);
    if (!has(entry.key)) {
      missing.insert(missing.end(), entry.names.begin(), entry.names.end());
      continue;
    }
    try {
      from_hugging_face(entry, read(entry.key), ours);
    } catch (const Error& error) {
      throw Error(fmt::format("{}: {}", files_[places_.at(entry.key).file].path(), error.what()));
    }
  }
  if (!unknown.empty()) {
    throw Error(fmt::format("{}: the model has no place for {} of its tensors: {}", path_, unknown.size(),
                            join({unknown.begin(), unknown.end()})));
  }
  return missing;
}

}  // namespace tessera
