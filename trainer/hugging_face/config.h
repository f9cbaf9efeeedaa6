#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "datasets/tokenizer.h"
#include "recipes/registry.h"

namespace tessera {

/// A model as a config.json describes it.
struct HuggingFaceModel {
  Choice model;              ///< its section of a recipe
  std::string architecture;  ///< "BertForPreTraining"; "" where the file does not say
  Choice objective = {};     ///< of a task's head, with its labels; not chosen where it has none
};

/// Reads a config.json of BERT, GPT-1 or GPT-2 (old and new key styles). Errors: Error that begins with
/// `where` and names the key: another kind of model, something that our model does not do, a value of the
/// wrong type or range.
HuggingFaceModel read_hugging_face_config(const nlohmann::ordered_json& json, const std::string& where);

/// What config.json says beside the model's section.
struct ConfigSetting {
  int64_t vocab_size = 0;
  bool next_sentence = false;
  bool tied = true;               ///< the table of tokens and the head that predicts them
  std::string dtype = "float32";  ///< of the file's tensors
  SpecialTokens special = {};
  Choice objective = {};  ///< what the model was trained for, where that is a task
};

/// The config.json of a model. Errors: Error where Hugging Face's model has no such option.
nlohmann::ordered_json hugging_face_config(const Choice& model, const ConfigSetting& setting);

}  // namespace tessera
