// Loads weights under their Hugging Face keys, runs loss and backward, and writes what came out, for
// tests/trainer/test_models_oracle.py.
// usage: tool_model_oracle FAMILY IN.h5 OUT.h5 key=value… (num_layers hidden_size num_heads vocab_size
// max_positions version recompute). IN: /weights/KEY float32;
// /batch/{tokens,labels[,segments,mask,next_sentence]} int64. OUT: /logits, /pair_logits, /losses,
// /gradients/KEY.
#include "tests/tools/oracle_files.h"
#include "trainer/models/bert.h"
#include "trainer/models/gpt.h"

namespace {

using namespace tessera;

ModelPtr make(const std::string& family, const OracleArguments& arguments) {
  if (family == "bert") return make_bert(arguments.sizes<BertConfig>());
  auto config = arguments.sizes<GptConfig>();
  config.version = arguments.integer("version", 2);
  return make_gpt(config);
}

at::Tensor read(const hdf5::File& file, const std::string& name) {
  return file.exists(name) ? read_tensor(file, name, at::kLong) : at::Tensor();
}

Batch read_batch(const hdf5::File& file) {
  Batch batch;
  batch.tokens = read(file, "/batch/tokens");
  batch.segments = read(file, "/batch/segments");
  const at::Tensor mask = read(file, "/batch/mask");
  if (mask.defined()) batch.attention_mask = mask.to(at::kBool);
  batch.next_sentence = read(file, "/batch/next_sentence");
  const at::Tensor labels = read(file, "/batch/labels").view(-1);
  batch.label_positions = labels.ne(-100).nonzero().view(-1);
  batch.labels = labels.index_select(0, batch.label_positions);
  return batch;
}

void run(const std::string& family, const std::string& in, const std::string& out,
         const OracleArguments& arguments) {
  const at::Device device = test_device();
  const hdf5::File source = hdf5::File::open(in);
  hdf5::File result = hdf5::File::create(out);
  const ModelPtr model = load_weights(make(family, arguments), source, device);
  model->set_recompute(arguments.integer("recompute", 0) != 0);
  auto parameters = model->named_parameters();
  const Batch batch = read_batch(source).to(device);
  const at::Tensor hidden = model->forward(batch);
  write_tensor(result, "/logits", model->token_logits(hidden));
  std::vector<at::Tensor> losses{model->token_loss(hidden, batch).sum /
                                 static_cast<double>(batch.labels.size(0))};
  if (batch.next_sentence.defined()) {
    const at::Tensor logits = model->pair_logits(hidden, batch);
    write_tensor(result, "/pair_logits", logits);
    losses.push_back(at::cross_entropy_loss(logits, batch.next_sentence));
  }
  const at::Tensor all = at::stack(losses);
  write_tensor(result, "/losses", all);
  all.sum().backward();
  const auto gradient = [&](const std::string& name) { return parameters[name].grad(); };
  for (const HuggingFaceTensor& entry : model->name_map()) {
    write_tensor(result, "/gradients/" + entry.key, to_hugging_face(entry, gradient));
  }
  result.close();
}

}  // namespace

int main(int argc, char** argv) { run(argv[1], argv[2], argv[3], {argc, argv}); }
