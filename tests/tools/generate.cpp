// Generates, fills masks and filters logits for tests/trainer/test_generate_oracle.py.
// usage: tool_generate gpt|bert|filter IN.h5 OUT.h5 key=value…
// gpt: /weights/KEY, /prompts [n, m] (-1 beyond the end) -> /tokens [n, max_tokens] (-1 beyond the end)
// bert: /weights/KEY, /tokens [m], mask=ID -> /ids, /probabilities [masks, best]
// filter: /logits [n, vocab], /contexts [n, m] -> /filtered [n, vocab]
#include "trainer/generate.h"

#include <torch/torch.h>

#include <map>

#include "datasets/hdf5.h"
#include "trainer/models/bert.h"
#include "trainer/models/gpt.h"
#include "trainer/name_map.h"

namespace {

using namespace tessera;
std::map<std::string, double> arguments;

double number(const std::string& key, double otherwise) {
  return arguments.contains(key) ? arguments.at(key) : otherwise;
}
int64_t integer(const std::string& key, int64_t otherwise) {
  return static_cast<int64_t>(number(key, static_cast<double>(otherwise)));
}

at::Tensor read(const hdf5::File& file, const std::string& name, at::ScalarType type) {
  at::Tensor tensor = torch::empty(file.info(name).shape, type);
  file.read(name, type == at::kLong ? hdf5::Type::i64 : hdf5::Type::f32, tensor.data_ptr());
  return tensor;
}

void write(hdf5::File& file, const std::string& name, const at::Tensor& tensor) {
  const at::Tensor values = tensor.to(at::kFloat).contiguous();
  file.write(name, hdf5::Type::f32, values.sizes().vec(), values.data_ptr());
}

std::vector<int32_t> row_of(const at::Tensor& rows, int64_t row) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < rows.size(1); ++i) {
    const auto token = rows[row][i].item<int64_t>();
    if (token >= 0) tokens.push_back(static_cast<int32_t>(token));
  }
  return tokens;
}

template <class Config>
Config sizes() {
  Config config;
  config.num_layers = integer("num_layers", 2);
  config.hidden_size = integer("hidden_size", 32);
  config.num_heads = integer("num_heads", 2);
  config.feed_forward_size = 4 * config.hidden_size;
  config.vocab_size = integer("vocab_size", 100);
  config.max_positions = integer("max_positions", 64);
  return config;
}

ModelPtr load(ModelPtr model, const hdf5::File& file) {
  const torch::NoGradGuard no_grad;
  auto parameters = model->named_parameters();
  for (const auto& entry : model->name_map()) {
    from_hugging_face(entry, read(file, "/weights/" + entry.key, at::kFloat),
                      [&](const std::string& name) { return parameters[name]; });
  }
  return model;
}

SamplingOptions sampling() {
  return {.temperature = number("temperature", 0),
          .top_k = integer("top_k", 0),
          .top_p = number("top_p", 1),
          .repetition_penalty = number("repetition_penalty", 1)};
}

void run_gpt(const hdf5::File& in, hdf5::File& out) {
  const ModelPtr model = load(make_gpt(sizes<GptConfig>()), in);
  const at::Tensor rows = read(in, "/prompts", at::kLong);
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t row = 0; row < rows.size(0); ++row) prompts.push_back(row_of(rows, row));
  GenerateOptions options{.sampling = sampling(), .max_tokens = integer("max_tokens", 10)};
  options.end = static_cast<int32_t>(integer("end", -1));
  const auto made = generate(*model, prompts, options);
  at::Tensor tokens = torch::full({rows.size(0), options.max_tokens}, -1);
  for (size_t row = 0; row < made.size(); ++row) {
    for (size_t i = 0; i < made[row].size(); ++i)
      tokens[static_cast<int64_t>(row)][static_cast<int64_t>(i)] = made[row][i];
  }
  write(out, "/tokens", tokens);
}

void run_bert(const hdf5::File& in, hdf5::File& out) {
  const ModelPtr model = load(make_bert(sizes<BertConfig>()), in);
  const auto tokens = row_of(read(in, "/tokens", at::kLong).unsqueeze(0), 0);
  const auto guesses =
      fill_mask(*model, tokens, static_cast<int32_t>(integer("mask", 0)), integer("best", 5));
  at::Tensor ids = torch::zeros({static_cast<int64_t>(guesses.size()), integer("best", 5)});
  at::Tensor probabilities = torch::zeros_like(ids);
  for (int64_t i = 0; i < ids.size(0); ++i) {
    for (int64_t k = 0; k < ids.size(1); ++k) {
      const MaskGuess& guess = guesses[static_cast<size_t>(i)][static_cast<size_t>(k)];
      ids[i][k] = guess.token;
      probabilities[i][k] = guess.probability;
    }
  }
  write(out, "/ids", ids);
  write(out, "/probabilities", probabilities);
}

void run_filter(const hdf5::File& in, hdf5::File& out) {
  const at::Tensor logits = read(in, "/logits", at::kFloat);
  const at::Tensor contexts = read(in, "/contexts", at::kLong);
  std::vector<at::Tensor> filtered;
  for (int64_t row = 0; row < logits.size(0); ++row) {
    filtered.push_back(filter_logits(logits[row], row_of(contexts, row), sampling()));
  }
  write(out, "/filtered", at::stack(filtered));
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 4; i < argc; ++i) {
    const std::string argument = argv[i];
    arguments[argument.substr(0, argument.find('='))] = std::stod(argument.substr(argument.find('=') + 1));
  }
  const hdf5::File in = hdf5::File::open(argv[2]);
  hdf5::File out = hdf5::File::create(argv[3]);
  const std::string mode = argv[1];
  mode == "gpt" ? run_gpt(in, out) : mode == "bert" ? run_bert(in, out) : run_filter(in, out);
  out.close();
}
