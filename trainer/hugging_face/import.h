#pragma once
#include <string>
#include <vector>

namespace tessera {

struct ImportedModel {
  std::string checkpoint;  ///< the folder written
  int64_t parameters = 0;
  std::vector<std::string> fresh;  ///< parameters that the model had none for: drawn anew
};

/// Makes a run folder `out` with one checkpoint, at step 0, out of a folder that `save_pretrained` left: what
/// `tessera generate`, `evaluate` and `export` take. Errors: those of HuggingFaceFolder; Error where it has
/// no tokenizer.json, or `out` holds checkpoints already.
ImportedModel import_model(const std::string& from, const std::string& out);

}  // namespace tessera
