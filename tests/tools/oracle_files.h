#pragma once
// What the tools of the oracle tests share: key=value arguments, tensors in HDF5 files, models with given
// weights.
#include <torch/torch.h>

#include <map>
#include <string>

#include "datasets/hdf5.h"
#include "tests/tools/device.h"
#include "trainer/name_map.h"

namespace tessera {

/// The words from argv[4] on, "key=value" with numbers as values.
class OracleArguments {
 public:
  OracleArguments(int argc, char** argv) {
    for (int i = 4; i < argc; ++i) {
      const std::string argument = argv[i];
      const size_t equals = argument.find('=');
      values_[argument.substr(0, equals)] = std::stod(argument.substr(equals + 1));
    }
  }
  double number(const std::string& key, double otherwise) const {
    return values_.contains(key) ? values_.at(key) : otherwise;
  }
  int64_t integer(const std::string& key, int64_t otherwise) const {
    return static_cast<int64_t>(number(key, static_cast<double>(otherwise)));
  }
  /// A small BertConfig or GptConfig.
  template <class Config>
  Config sizes() const {
    Config config;
    config.num_layers = integer("num_layers", 2);
    config.hidden_size = integer("hidden_size", 32);
    config.num_heads = integer("num_heads", 2);
    config.feed_forward_size = integer("feed_forward_size", 4 * config.hidden_size);
    config.vocab_size = integer("vocab_size", 100);
    config.max_positions = integer("max_positions", 64);
    return config;
  }

 private:
  std::map<std::string, double> values_;
};

inline at::Tensor read_tensor(const hdf5::File& file, const std::string& name, at::ScalarType type) {
  at::Tensor tensor = torch::empty(file.info(name).shape, type);
  file.read(name, type == at::kLong ? hdf5::Type::i64 : hdf5::Type::f32, tensor.data_ptr());
  return tensor;
}

/// As float32.
inline void write_tensor(hdf5::File& file, const std::string& name, const at::Tensor& tensor) {
  const at::Tensor values = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
  file.write(name, hdf5::Type::f32, values.sizes().vec(), values.data_ptr());
}

/// Fills the model with /weights/KEY, under Hugging Face's keys, and moves it.
inline ModelPtr load_weights(ModelPtr model, const hdf5::File& file, at::Device device) {
  const torch::NoGradGuard no_grad;
  model->allocate();
  auto parameters = model->named_parameters();
  for (const HuggingFaceTensor& entry : model->name_map()) {
    from_hugging_face(entry, read_tensor(file, "/weights/" + entry.key, at::kFloat),
                      [&](const std::string& name) { return parameters[name]; });
  }
  if (!device.is_cpu()) model->to(device);
  return model;
}

}  // namespace tessera
