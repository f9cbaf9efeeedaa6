// Loads weights under their Hugging Face keys, runs loss and backward, and writes what came out, for
// tests/trainer/test_models_oracle.py.
// usage: tool_model_oracle FAMILY IN.h5 OUT.h5 key=value… (num_layers hidden_size num_heads vocab_size
// max_positions version recompute). IN: /weights/KEY float32;
// /batch/{tokens,labels[,segments,mask,next_sentence]} int64. OUT: /logits, /pair_logits, /losses,
// /gradients/KEY.
#include <torch/torch.h>

#include <iostream>
#include <map>

#include "datasets/hdf5.h"
#include "trainer/models/bert.h"
#include "trainer/models/gpt.h"
#include "trainer/name_map.h"

namespace {

using namespace tessera;
std::map<std::string, int64_t> arguments;

int64_t number(const std::string& key, int64_t otherwise) {
  return arguments.contains(key) ? arguments.at(key) : otherwise;
}

template <class Config>
Config sizes() {
  Config config;
  config.num_layers = number("num_layers", 2);
  config.hidden_size = number("hidden_size", 32);
  config.num_heads = number("num_heads", 2);
  config.feed_forward_size = number("feed_forward_size", 4 * config.hidden_size);
  config.vocab_size = number("vocab_size", 100);
  config.max_positions = number("max_positions", 64);
  return config;
}

ModelPtr make(const std::string& family) {
  if (family == "bert") return make_bert(sizes<BertConfig>());
  auto config = sizes<GptConfig>();
  config.version = number("version", 2);
  return make_gpt(config);
}

at::Tensor read(const hdf5::File& file, const std::string& name, at::ScalarType type) {
  if (!file.exists(name)) return {};
  at::Tensor tensor = torch::empty(file.info(name).shape, type);
  file.read(name, type == at::kLong ? hdf5::Type::i64 : hdf5::Type::f32, tensor.data_ptr());
  return tensor;
}

void write(hdf5::File& file, const std::string& name, const at::Tensor& tensor) {
  const at::Tensor values = tensor.detach().to(at::kFloat).contiguous();
  file.write(name, hdf5::Type::f32, values.sizes().vec(), values.data_ptr());
}

Batch read_batch(const hdf5::File& file) {
  Batch batch;
  batch.tokens = read(file, "/batch/tokens", at::kLong);
  batch.segments = read(file, "/batch/segments", at::kLong);
  const at::Tensor mask = read(file, "/batch/mask", at::kLong);
  if (mask.defined()) batch.attention_mask = mask.to(at::kBool);
  batch.next_sentence = read(file, "/batch/next_sentence", at::kLong);
  const at::Tensor labels = read(file, "/batch/labels", at::kLong).view(-1);
  batch.label_positions = labels.ne(-100).nonzero().view(-1);
  batch.labels = labels.index_select(0, batch.label_positions);
  return batch;
}

void run(const std::string& family, const std::string& in, const std::string& out) {
  const hdf5::File source = hdf5::File::open(in);
  hdf5::File result = hdf5::File::create(out);
  const ModelPtr model = make(family);
  model->set_recompute(number("recompute", 0) != 0);
  auto parameters = model->named_parameters();
  const auto parameter = [&](const std::string& name) { return parameters[name]; };
  for (const HuggingFaceTensor& entry : model->name_map()) {
    from_hugging_face(entry, read(source, "/weights/" + entry.key, at::kFloat), parameter);
  }
  const Batch batch = read_batch(source);
  const at::Tensor hidden = model->forward(batch);
  write(result, "/logits", model->token_logits(hidden));
  std::vector<at::Tensor> losses{model->token_loss(hidden, batch.label_positions, batch.labels).sum /
                                 static_cast<double>(batch.labels.size(0))};
  if (batch.next_sentence.defined()) {
    const at::Tensor logits = model->pair_logits(hidden, batch.batch());
    write(result, "/pair_logits", logits);
    losses.push_back(at::cross_entropy_loss(logits, batch.next_sentence));
  }
  const at::Tensor all = at::stack(losses);
  write(result, "/losses", all);
  all.sum().backward();
  const auto gradient = [&](const std::string& name) { return parameters[name].grad(); };
  for (const HuggingFaceTensor& entry : model->name_map()) {
    write(result, "/gradients/" + entry.key, to_hugging_face(entry, gradient));
  }
  result.close();
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 4; i < argc; ++i) {
    const std::string argument = argv[i];
    const size_t equals = argument.find('=');
    arguments[argument.substr(0, equals)] = std::stoll(argument.substr(equals + 1));
  }
  run(argv[1], argv[2], argv[3]);
}
