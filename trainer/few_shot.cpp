#include "trainer/few_shot.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>
#include <utility>

#include "datasets/tokenizer/unicode.h"
#include "recipes/error.h"

namespace tessera {
namespace {

/// The bytes without white space at the end, as Python's str.rstrip() takes it off.
size_t length_without_trailing_space(const std::string& text) {
  for (size_t end = text.size(); end > 0;) {
    size_t begin = end - 1;
    while (begin > 0 && !unicode::starts_character(text[begin])) --begin;
    const char* at = text.data() + begin;
    const char32_t c = unicode::next(at);
    const bool separator = c >= 0x1C && c <= 0x1F;  // white space to Python, not to Unicode
    if (!separator && !unicode::is_whitespace(c)) return end;
    end = begin;
  }
  return 0;
}

/// The token that tokenizer.json's template puts before a text; -1: none.
int32_t template_begin_of(const Tokenizer& tokenizer) {
  using Pointer = nlohmann::json::json_pointer;
  try {
    const auto json = nlohmann::json::parse(tokenizer.json());
    const auto text_at = [&](const char* path) { return json.value(Pointer(path), std::string()); };
    const std::string type = text_at("/post_processor/type");
    const bool fixed = type == "BertProcessing" || type == "RobertaProcessing";
    const std::string token =
        text_at(fixed ? "/post_processor/cls/0" : "/post_processor/single/0/SpecialToken/id");
    return token.empty() ? -1 : tokenizer.id_of(token);
  } catch (const nlohmann::json::exception& problem) {
    throw Error(fmt::format("the tokenizer's post_processor is no template: {}", problem.what()));
  }
}

/// What the model reads of a text: the last token is only predicted.
std::span<const int32_t> input_of(const ScoredText& text) {
  return std::span(text.tokens).first(text.tokens.size() - 1);
}

/// Texts with the same input, which is computed once: choices of one token after the same context, say.
using SameInput = std::vector<size_t>;

std::vector<SameInput> group_by_input(const std::vector<ScoredText>& texts) {
  std::vector<size_t> order(texts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto precedes = [&](size_t a, size_t b) {
    const auto left = input_of(texts[a]), right = input_of(texts[b]);
    if (left.size() != right.size()) return left.size() > right.size();
    return std::lexicographical_compare(left.begin(), left.end(), right.begin(), right.end());
  };
  std::stable_sort(order.begin(), order.end(), precedes);
  std::vector<SameInput> groups;
  for (const size_t text : order) {
    if (groups.empty() || precedes(groups.back().front(), text)) groups.emplace_back();
    groups.back().push_back(text);
  }
  return groups;
}

/// The predictions of a batch that count.
struct ScoredTokens {
  std::vector<int64_t> rows;     // of the hidden states
  std::vector<int64_t> targets;  // the tokens that follow
  std::vector<size_t> texts;     // whose they are
};

/// Inputs padded at their end, where a causal model sees nothing of it: [groups, longest].
at::Tensor padded_inputs(const std::vector<ScoredText>& texts, std::span<const SameInput> groups,
                         ScoredTokens& scored) {
  const size_t longest = input_of(texts[groups.front().front()]).size();
  at::Tensor tokens =
      torch::zeros({static_cast<int64_t>(groups.size()), static_cast<int64_t>(longest)}, at::kLong);
  for (size_t row = 0; row < groups.size(); ++row) {
    const auto input = input_of(texts[groups[row].front()]);
    std::copy(input.begin(), input.end(), tokens.data_ptr<int64_t>() + row * longest);
    for (const size_t index : groups[row]) {
      const ScoredText& text = texts[index];
      for (size_t i = text.tokens.size() - static_cast<size_t>(text.scored); i < text.tokens.size(); ++i) {
        scored.rows.push_back(static_cast<int64_t>(row * longest + i) - 1);
        scored.targets.push_back(text.tokens[i]);
        scored.texts.push_back(index);
      }
    }
  }
  return tokens;
}

/// Log-probabilities of the targets, a bounded number of rows of logits at a time: float64 on the CPU.
at::Tensor log_probabilities(const Model& model, const at::Tensor& hidden, const ScoredTokens& scored) {
  constexpr int64_t most_logits = 1 << 24;  // 64 MB
  const int64_t chunk = std::max<int64_t>(1, most_logits / model.vocab_size());
  const at::Tensor rows = torch::tensor(scored.rows).to(hidden.device());
  const at::Tensor targets = torch::tensor(scored.targets).to(hidden.device()).unsqueeze(1);
  std::vector<at::Tensor> parts;
  for (int64_t first = 0; first < rows.size(0); first += chunk) {
    const int64_t end = std::min(first + chunk, rows.size(0));
    const at::Tensor logits =
        model.token_logits(hidden.index_select(0, rows.slice(0, first, end))).to(at::kFloat);
    const at::Tensor chosen = logits.gather(1, targets.slice(0, first, end)).squeeze(1);
    parts.push_back(chosen - logits.logsumexp(1));
  }
  return at::cat(parts).to(at::kCPU, at::kDouble);
}

size_t largest(const std::vector<double>& values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

MeanWithError mean_with_error(const std::vector<double>& values) {
  const auto count = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  if (values.size() < 2) return {mean, std::numeric_limits<double>::quiet_NaN()};
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {mean, std::sqrt(squares / (count - 1) / count)};
}

}  // namespace

ScoredTextEncoder::ScoredTextEncoder(TokenizerPtr tokenizer, int64_t max_positions)
    : tokenizer_(std::move(tokenizer)),
      max_positions_(static_cast<size_t>(max_positions)),
      template_begin_(template_begin_of(*tokenizer_)) {}

std::vector<int32_t> ScoredTextEncoder::whole(const std::string& text) const {
  std::vector<int32_t> tokens = tokenizer_->encode(text);
  const bool begins = !tokens.empty() && tokens.front() == template_begin_;  // the text says it itself
  if (template_begin_ >= 0 && !begins) tokens.insert(tokens.begin(), template_begin_);
  return tokens;
}

ScoredText ScoredTextEncoder::without_context(const std::string& continuation) const {
  const SpecialTokens& special = tokenizer_->special();
  const int32_t begin = special.begin >= 0 ? special.begin : special.end;
  if (begin < 0) {
    throw Error("the context is empty, and the tokenizer has no token that a text begins or ends with");
  }
  ScoredText text{tokenizer_->encode(continuation), 0};
  if (text.tokens.empty() || text.tokens.front() != begin) text.tokens.insert(text.tokens.begin(), begin);
  text.scored = static_cast<int64_t>(text.tokens.size()) - 1;
  return text;
}

ScoredText ScoredTextEncoder::encode(const std::string& context, const std::string& continuation) const {
  const std::string stripped = context.substr(0, length_without_trailing_space(context));
  const std::vector<int32_t> before = stripped.empty() ? std::vector<int32_t>() : whole(stripped);
  ScoredText text;
  if (before.empty()) {
    text = without_context(context + continuation);
  } else {
    const std::vector<int32_t> all = whole(context + continuation);
    text.tokens = before;
    const auto shared = static_cast<int64_t>(std::min(before.size(), all.size()));
    text.tokens.insert(text.tokens.end(), all.begin() + shared, all.end());
    text.scored = static_cast<int64_t>(all.size()) - shared;
  }
  if (text.scored < 1) {
    throw Error(
        "adds no token to its context; valid: a choice that is a word of its own, such as after a "
        "target_delimiter of ' '");
  }
  if (static_cast<size_t>(text.scored) > max_positions_) {
    throw Error(fmt::format("has {} tokens, but the model reads {} at most", text.scored, max_positions_));
  }
  const size_t most = max_positions_ + 1;  // the last one is predicted, not read
  if (text.tokens.size() > most) {
    text.tokens.erase(text.tokens.begin(), text.tokens.end() - static_cast<int64_t>(most));
  }
  return text;
}

std::vector<double> log_likelihoods(const Model& model, const std::vector<ScoredText>& texts,
                                    int64_t micro_batch) {
  const torch::NoGradGuard no_grad;
  const at::Device device = device_of(model);
  const std::vector<SameInput> groups = group_by_input(texts);
  std::vector<double> sums(texts.size(), 0.0);
  for (size_t first = 0; first < groups.size();) {
    const size_t count = std::min(groups.size() - first, static_cast<size_t>(micro_batch));
    ScoredTokens scored;
    Batch batch;
    batch.tokens = padded_inputs(texts, std::span(groups).subspan(first, count), scored).to(device);
    const at::Tensor values = log_probabilities(model, model.forward(batch), scored);
    const auto* value = values.data_ptr<double>();
    for (size_t i = 0; i < scored.texts.size(); ++i) sums[scored.texts[i]] += value[i];
    first += count;
  }
  return sums;
}

size_t ScoredChoices::prediction() const { return largest(log_likelihoods); }

size_t ScoredChoices::normalized_prediction() const {
  std::vector<double> normalized = log_likelihoods;
  for (size_t i = 0; i < normalized.size(); ++i) normalized[i] /= lengths[i];
  return largest(normalized);
}

FewShotReport summarise(const std::vector<ScoredChoices>& questions) {
  std::vector<double> right, right_normalized, log_likelihood;
  for (const ScoredChoices& question : questions) {
    right.push_back(question.prediction() == question.answer ? 1 : 0);
    right_normalized.push_back(question.normalized_prediction() == question.answer ? 1 : 0);
    log_likelihood.push_back(question.log_likelihoods[question.answer]);
  }
  return {mean_with_error(right), mean_with_error(right_normalized), mean_with_error(log_likelihood)};
}

}  // namespace tessera
