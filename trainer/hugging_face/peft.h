#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "trainer/adapt/lora.h"
#include "trainer/hugging_face/safetensors.h"
#include "trainer/model.h"

namespace tessera {

/// An adapter as PEFT's save_pretrained leaves it: adapter_config.json and adapter_model.safetensors
/// (huggingface/peft, LoRA with rsLoRA, DoRA, patterns, biases, embeddings, modules_to_save).
class PeftAdapter {
 public:
  /// Errors: Error naming the file and what is wrong: no adapter, another method than LoRA, an option that
  /// changes the product and that we do not have, damaged tensors.
  static PeftAdapter open(const std::string& folder);

  const std::string& folder() const { return folder_; }
  /// The options of `adapt` that give the model these low-rank parts; those that are no matter of the adapter
  /// are `given`. Errors: Error where the adapter has parts for layers that the model has not.
  LoraOptions options(const Model& model, const LoraOptions& given) const;
  /// Values of the parameters that it trained, low-rank parts and others, by our names, whole. `model` has
  /// the parts. Errors: Error naming tensors of another shape, or that the model has no place for.
  std::map<std::string, at::Tensor> parameters(const Model& model) const;

 private:
  struct Part {
    at::Tensor a, b, magnitude;
    bool table = false;
  };
  explicit PeftAdapter(SafetensorsFile file) : file_(std::move(file)) {}
  void sort_out(const Model& model, std::map<std::string, Part>& parts,
                std::map<std::string, at::Tensor>& whole) const;

  std::string folder_;
  SafetensorsFile file_;
  int64_t rank_ = 8;
  double alpha_ = 8;
  std::map<std::string, double> rank_pattern_, alpha_pattern_;
  bool rank_stabilized_ = false, dora_ = false;
  LoraBias bias_ = LoraBias::none;
};

/// Gives a model that is whole the adapter's parts and values, and merges them: several may follow each
/// other.
void merge_adapter(Model& model, const PeftAdapter& adapter);

/// Adds every low-rank part to the layer's weight and takes it off. The table of tokens keeps its part where
/// a head reads the same table, which must not change.
void merge_lora(Model& model);

/// What PEFT's configuration says beside the parts.
struct PeftSetting {
  std::string base;       ///< base_model_name_or_path
  std::string task_type;  ///< "SEQ_CLS", "CAUSAL_LM", …; "" for none
  LoraOptions options;
  std::vector<std::string> trained;  ///< parameters trained in full
};
/// Writes the low-rank parts of a model (whole, on the CPU) as such a folder. Errors: Error naming what PEFT
/// cannot express.
void write_peft_folder(const std::string& folder, const Model& model, const PeftSetting& setting);

}  // namespace tessera
