#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "datasets/tokenizer.h"
#include "trainer/hugging_face/config.h"
#include "trainer/hugging_face/safetensors.h"
#include "trainer/model.h"

namespace tessera {

/// A folder as `save_pretrained` leaves it: config.json, model.safetensors (or several with an index), and a
/// tokenizer.json where there is one.
class HuggingFaceFolder {
 public:
  /// Reads the config and the files' headers. Errors: Error naming the file and what is wrong: no config,
  /// only PyTorch .bin files (it tells the way out), an index that does not match its files.
  static HuggingFaceFolder open(const std::string& path);

  const std::string& path() const { return path_; }
  const HuggingFaceModel& model() const { return model_; }
  /// Null where the folder has none.
  TokenizerPtr tokenizer() const { return tokenizer_; }
  bool has(const std::string& key) const { return places_.contains(key); }
  std::vector<std::string> keys() const;
  std::vector<int64_t> shape(const std::string& key) const;
  /// A tensor under its key in the current style: old ones ("gamma", without "bert." or "transformer.") have
  /// been renamed.
  at::Tensor read(const std::string& key) const;

  /// Fills the model's parameters (allocated; those that the folder lacks stay as they are) and returns the
  /// names of those. Errors: Error naming a tensor of another shape, or tensors that the model has no place
  /// for.
  std::vector<std::string> load(Model& model) const;

 private:
  struct TensorPlace {
    size_t file;
    std::string key;  ///< in the file
  };
  void open_weights();
  void add_file(const std::string& path);

  std::string path_;
  HuggingFaceModel model_;
  TokenizerPtr tokenizer_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, TensorPlace> places_;
};

/// A key of a family's weights in the style of today.
std::string current_key(std::string key, const std::string& family);
/// Buffers that older versions saved, and copies of tied tensors.
bool is_passed_over(const std::string& key);
/// The text of a small file, as JSON without duplicate keys. Errors: Error naming the file.
nlohmann::ordered_json read_json_file(const std::string& path);

struct ExportOptions {
  at::ScalarType dtype = at::kFloat;
  int64_t shard_bytes = int64_t(5) << 30;  ///< of a file, as Hugging Face cuts them
  Choice objective = {};                   ///< the recipe's: tells of a task's head and its labels
};

/// Writes `model`, whose section of the recipe is `section`, and its tokenizer as such a folder, which
/// appears file by file when all are whole. Errors: Error naming what cannot be expressed or written.
void write_hugging_face_folder(const std::string& path, const Model& model, const Choice& section,
                               const Tokenizer& tokenizer, const ExportOptions& options = {});

}  // namespace tessera
