#include "trainer/generate.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>

#include "recipes/error.h"

namespace tessera {
namespace {

void check_prompts(const Model& model, const std::vector<std::vector<int32_t>>& prompts) {
  for (size_t row = 0; row < prompts.size(); ++row) {
    if (prompts[row].empty()) throw Error(fmt::format("prompt {} is empty", row + 1));
    if (static_cast<int64_t>(prompts[row].size()) >= model.max_positions()) {
      throw Error(fmt::format(
          "prompt {} has {} tokens; the model has {} positions, at least one of them for what follows",
          row + 1, prompts[row].size(), model.max_positions()));
    }
  }
}

/// Prompts of different lengths end at the same column: [batch, longest], and how much each is padded on its
/// left.
std::pair<at::Tensor, at::Tensor> left_padded(const std::vector<std::vector<int32_t>>& prompts) {
  size_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
  const auto rows = static_cast<int64_t>(prompts.size());
  at::Tensor tokens = torch::zeros({rows, static_cast<int64_t>(longest)}, at::kLong);
  at::Tensor padding = torch::zeros({rows}, at::kLong);
  for (size_t row = 0; row < prompts.size(); ++row) {
    const size_t pad = longest - prompts[row].size();
    padding.data_ptr<int64_t>()[row] = static_cast<int64_t>(pad);
    std::copy(prompts[row].begin(), prompts[row].end(), tokens.data_ptr<int64_t>() + row * longest + pad);
  }
  return {tokens, padding};
}

}  // namespace

std::vector<std::vector<int32_t>> generate(const Model& model,
                                           const std::vector<std::vector<int32_t>>& prompts,
                                           const GenerateOptions& options, const TokenSink& sink) {
  const torch::NoGradGuard no_grad;
  check_prompts(model, prompts);
  const size_t rows = prompts.size();
  std::vector<std::vector<int32_t>> contexts = prompts;
  std::vector<RandomStream> streams;
  for (size_t row = 0; row < rows; ++row) {
    streams.emplace_back(options.seed, static_cast<uint64_t>(options.first_prompt) + row);
  }
  auto [tokens, padding] = left_padded(prompts);
  const at::Device device = device_of(model);
  KeyValueCache cache = model.make_cache(static_cast<int64_t>(rows));
  if (padding.any().item<bool>()) cache.padding = padding.to(device);
  std::vector<bool> ended(rows, false);
  const int64_t room = std::min(options.max_tokens, model.max_positions() - tokens.size(1));
  for (int64_t made = 0; made < room && std::count(ended.begin(), ended.end(), false) > 0; ++made) {
    // Reading the logits is the only place where this waits for the device.
    const at::Tensor fed = tokens.to(device, /*non_blocking=*/true);
    const at::Tensor logits = model.next_logits(fed, cache).to(at::kCPU, at::kFloat);
    tokens = torch::zeros({static_cast<int64_t>(rows), 1}, at::kLong);
    for (size_t row = 0; row < rows; ++row) {
      if (ended[row]) continue;
      const int32_t token =
          choose_token(logits[static_cast<int64_t>(row)], contexts[row], options.sampling, streams[row]);
      ended[row] = token == options.end;
      if (ended[row]) continue;
      tokens.data_ptr<int64_t>()[row] = token;
      contexts[row].push_back(token);
      if (sink) sink(row, token);
    }
  }
  for (size_t row = 0; row < rows; ++row) {
    contexts[row].erase(contexts[row].begin(),
                        contexts[row].begin() + static_cast<int64_t>(prompts[row].size()));
  }
  return contexts;
}

std::vector<std::vector<MaskGuess>> fill_mask(const Model& model, const std::vector<int32_t>& tokens,
                                              int32_t mask, int64_t best) {
  const torch::NoGradGuard no_grad;
  if (static_cast<int64_t>(tokens.size()) > model.max_positions()) {
    throw Error(fmt::format("the text has {} tokens; the model has {} positions", tokens.size(),
                            model.max_positions()));
  }
  std::vector<int64_t> masked;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] == mask) masked.push_back(static_cast<int64_t>(i));
  }
  if (masked.empty()) throw Error("the text has no mask to fill");
  const at::Device device = device_of(model);
  Batch batch;
  batch.tokens = torch::tensor(std::vector<int64_t>(tokens.begin(), tokens.end())).unsqueeze(0).to(device);
  const at::Tensor hidden = model.forward(batch).index_select(0, torch::tensor(masked).to(device));
  const at::Tensor probabilities = model.token_logits(hidden).to(at::kCPU, at::kDouble).softmax(-1);
  auto [values, ids] = probabilities.topk(std::min(best, probabilities.size(1)), -1);
  std::vector<std::vector<MaskGuess>> guesses(masked.size());
  for (int64_t i = 0; i < values.size(0); ++i) {
    for (int64_t k = 0; k < values.size(1); ++k) {
      guesses[static_cast<size_t>(i)].push_back(
          {static_cast<int32_t>(ids[i][k].item<int64_t>()), values[i][k].item<double>()});
    }
  }
  return guesses;
}

std::string TextStream::add(int32_t token) {
  tokens_.push_back(token);
  std::string text = tokenizer_->decode(tokens_);
  // An unfinished character decodes to U+FFFD at the end.
  while (text.ends_with("\xEF\xBF\xBD")) text.resize(text.size() - 3);
  if (text.size() <= given_.size()) return "";
  std::string fresh = text.substr(given_.size());
  given_ = std::move(text);
  return fresh;
}

std::string TextStream::finish() {
  const std::string text = tokenizer_->decode(tokens_);
  std::string rest = text.size() > given_.size() ? text.substr(given_.size()) : "";
  given_ = text;
  return rest;
}

}  // namespace tessera
