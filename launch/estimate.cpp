#include "launch/estimate.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <map>
#include <set>

#include "trainer/models/models.h"
#include "trainer/optimizers/optimizers.h"
#include "trainer/parameters.h"

namespace tessera {
namespace {

/// Published vocabularies: Google's uncased BERT, GPT-2, GPT-1.
int64_t usual_vocabulary(const Recipe& recipe) {
  if (recipe.model.name() == "bert") return 30522;
  return recipe.model.integer("version") == 1 ? 40478 : 50257;
}

int64_t bytes_of(Precision precision) { return precision == Precision::fp32 ? 4 : 2; }

/// Elements of the optimizer's state, asked of itself on tensors without storage.
int64_t count_state(const Recipe& recipe, Model& model) {
  std::vector<Parameter> parameters = collect_parameters(model);
  for (auto& parameter : parameters)
    parameter.master = parameter.working = parameter.master.detach().to(at::kMeta);
  int64_t elements = 0;
  for (const auto& piece : make_optimizer(recipe.optimizer, std::move(parameters))->state()) {
    elements += piece.local.numel();
  }
  return elements;
}

/// Rows of logits that exist at once and are kept for backward: their gradient overwrites them.
int64_t predicted_tokens(const Recipe& recipe) {
  const int64_t tokens = recipe.train.micro_batch * recipe.data.sequence_length;
  const Section objective = recipe.objective.write();
  const SectionEntry* share = objective.find("mask_probability");
  return share ? static_cast<int64_t>(static_cast<double>(tokens) * std::stod(share->value.text)) : tokens;
}

int64_t activation_elements(const Recipe& recipe) {
  const int64_t tokens = recipe.train.micro_batch * recipe.data.sequence_length;
  const int64_t hidden = recipe.model.integer("hidden_size").value_or(0);
  const int64_t given = recipe.model.integer("feed_forward_size").value_or(0);
  const int64_t wide = given > 0 ? given : 4 * hidden;
  const int64_t layers = recipe.model.integer("num_layers").value_or(0);
  const int64_t block = 9 * hidden + 2 * wide;
  const bool again = recipe.train.recompute == Recompute::blocks;
  return tokens * (again ? layers * hidden + block : layers * block);
}

}  // namespace

ModelParts count_parameters(const Recipe& recipe, int64_t vocab_size) {
  ModelParts result;
  const int64_t written = recipe.model.integer("vocab_size").value_or(0);
  result.vocab_size = written > 0 ? written : vocab_size > 0 ? vocab_size : usual_vocabulary(recipe);
  const ModelPtr model =
      make_model(recipe.model, {result.vocab_size, /*next_sentence=*/recipe.objective.name() == "mlm_nsp"});
  std::set<const void*> seen;
  std::map<std::string, std::set<std::string>> copies;
  for (const auto& item : model->named_parameters()) {
    if (!seen.insert(item.value().unsafeGetTensorImpl()).second) continue;
    const std::string& name = item.key();
    const std::string first = name.substr(0, name.find('.'));
    if (result.parts.empty() || result.parts.back().name != first) result.parts.push_back({first});
    result.parts.back().parameters += item.value().numel();
    result.total += item.value().numel();
    const std::string rest = name.substr(std::min(name.size(), first.size() + 1));
    if (!rest.empty() && std::isdigit(static_cast<unsigned char>(rest.front()))) {
      copies[first].insert(rest.substr(0, rest.find('.')));
    }
  }
  for (auto& part : result.parts)
    part.times = std::max<int64_t>(1, static_cast<int64_t>(copies[part.name].size()));
  result.optimizer_state = count_state(recipe, *model);
  return result;
}

std::vector<MemoryKind> memory_per_rank(const Recipe& recipe, const ModelParts& parts, int ranks) {
  const int64_t n = parts.total, working = bytes_of(recipe.train.precision);
  const bool half = working == 2;
  const bool accumulates = batch_arithmetic(recipe, ranks).accumulation > 1;
  std::vector<MemoryKind> kinds;
  const auto add = [&](const char* name, const std::string& why, int64_t bytes) {
    if (bytes > 0) kinds.push_back({name, why, bytes});
  };
  add("weights", "fp32", 4 * n);
  add("working weights", "16 bits", half ? 2 * n : 0);
  const bool wide = half && accumulates;
  add("gradients",
      wide   ? "16 bits, accumulated in fp32"
      : half ? "16 bits"
             : "fp32",
      (working + (wide ? 4 : 0)) * n);
  add("optimizer state", "fp32", 4 * parts.optimizer_state);
  add("moving average", "fp32", recipe.train.ema > 0 ? 4 * n : 0);
  add("activations",
      fmt::format("estimate for {} x {} tokens", recipe.train.micro_batch, recipe.data.sequence_length),
      working * activation_elements(recipe));
  add("logits", "at most; estimate", working * predicted_tokens(recipe) * parts.vocab_size);
  return kinds;
}

std::string with_commas(int64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string bytes_text(int64_t bytes) {
  const double value = static_cast<double>(bytes);
  return bytes >= 1'000'000'000 ? fmt::format("{:.2f} GB", value / 1e9)
                                : fmt::format("{:.1f} MB", value / 1e6);
}

}  // namespace tessera
