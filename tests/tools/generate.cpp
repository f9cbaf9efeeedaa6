// Generates, fills masks and filters logits for tests/trainer/test_generate_oracle.py.
// usage: tool_generate gpt|bert|filter IN.h5 OUT.h5 key=value…
// gpt: /weights/KEY, /prompts [n, m] (-1 beyond the end) -> /tokens [n, max_tokens] (-1 beyond the end)
// bert: /weights/KEY, /tokens [m], mask=ID -> /ids, /probabilities [masks, best]
// filter: /logits [n, vocab], /contexts [n, m] -> /filtered [n, vocab]
#include "trainer/generate.h"

#include "tests/tools/oracle_files.h"
#include "trainer/models/bert.h"
#include "trainer/models/gpt.h"

namespace {

using namespace tessera;

std::vector<int32_t> row_of(const at::Tensor& rows, int64_t row) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < rows.size(1); ++i) {
    const auto token = rows[row][i].item<int64_t>();
    if (token >= 0) tokens.push_back(static_cast<int32_t>(token));
  }
  return tokens;
}

SamplingOptions sampling(const OracleArguments& arguments) {
  return {.temperature = arguments.number("temperature", 0),
          .top_k = arguments.integer("top_k", 0),
          .top_p = arguments.number("top_p", 1),
          .repetition_penalty = arguments.number("repetition_penalty", 1)};
}

void run_gpt(const OracleArguments& arguments, const hdf5::File& in, hdf5::File& out, at::Device device) {
  const ModelPtr model = load_weights(make_gpt(arguments.sizes<GptConfig>()), in, device);
  const at::Tensor rows = read_tensor(in, "/prompts", at::kLong);
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t row = 0; row < rows.size(0); ++row) prompts.push_back(row_of(rows, row));
  GenerateOptions options{.sampling = sampling(arguments), .max_tokens = arguments.integer("max_tokens", 10)};
  options.end = static_cast<int32_t>(arguments.integer("end", -1));
  const auto made = generate(*model, prompts, options);
  at::Tensor tokens = torch::full({rows.size(0), options.max_tokens}, -1);
  for (size_t row = 0; row < made.size(); ++row) {
    for (size_t i = 0; i < made[row].size(); ++i)
      tokens[static_cast<int64_t>(row)][static_cast<int64_t>(i)] = made[row][i];
  }
  write_tensor(out, "/tokens", tokens);
}

void run_bert(const OracleArguments& arguments, const hdf5::File& in, hdf5::File& out, at::Device device) {
  const ModelPtr model = load_weights(make_bert(arguments.sizes<BertConfig>()), in, device);
  const auto tokens = row_of(read_tensor(in, "/tokens", at::kLong).unsqueeze(0), 0);
  const auto guesses = fill_mask(*model, tokens, static_cast<int32_t>(arguments.integer("mask", 0)),
                                 arguments.integer("best", 5));
  at::Tensor ids = torch::zeros({static_cast<int64_t>(guesses.size()), arguments.integer("best", 5)});
  at::Tensor probabilities = torch::zeros_like(ids);
  for (int64_t i = 0; i < ids.size(0); ++i) {
    for (int64_t k = 0; k < ids.size(1); ++k) {
      const MaskGuess& guess = guesses[static_cast<size_t>(i)][static_cast<size_t>(k)];
      ids[i][k] = guess.token;
      probabilities[i][k] = guess.probability;
    }
  }
  write_tensor(out, "/ids", ids);
  write_tensor(out, "/probabilities", probabilities);
}

void run_filter(const OracleArguments& arguments, const hdf5::File& in, hdf5::File& out) {
  const at::Tensor logits = read_tensor(in, "/logits", at::kFloat);
  const at::Tensor contexts = read_tensor(in, "/contexts", at::kLong);
  std::vector<at::Tensor> filtered;
  for (int64_t row = 0; row < logits.size(0); ++row) {
    filtered.push_back(filter_logits(logits[row], row_of(contexts, row), sampling(arguments)));
  }
  write_tensor(out, "/filtered", at::stack(filtered));
}

}  // namespace

int main(int argc, char** argv) {
  const at::Device device = test_device();
  const OracleArguments arguments(argc, argv);
  const hdf5::File in = hdf5::File::open(argv[2]);
  hdf5::File out = hdf5::File::create(argv[3]);
  const std::string mode = argv[1];
  mode == "gpt"    ? run_gpt(arguments, in, out, device)
  : mode == "bert" ? run_bert(arguments, in, out, device)
                   : run_filter(arguments, in, out);
  out.close();
}
