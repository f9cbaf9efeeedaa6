#include "launch/model_facts.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <algorithm>
#include <map>
#include <set>

#include "recipes/said_at.h"
#include "trainer/adapt/adapt.h"
#include "trainer/models/models.h"
#include "trainer/objectives/objectives.h"
#include "trainer/optimizers/optimizers.h"
#include "trainer/parameters.h"
#include "trainer/start_model.h"

namespace tessera {
namespace {

/// Published vocabularies: Google's uncased BERT, GPT-2, GPT-1.
int64_t usual_vocabulary(const Recipe& recipe) {
  if (recipe.model.name() == "bert") return 30522;
  return recipe.model.integer("version") == 1 ? 40478 : 50257;
}

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

/// Adds parameters to the first components of their names.
class PartCounter {
 public:
  void add(const std::string& name, int64_t count) {
    const std::string first = name.substr(0, name.find('.'));
    if (parts_.empty() || parts_.back().name != first) parts_.push_back({first});
    parts_.back().parameters += count;
    const std::string rest = name.substr(std::min(name.size(), first.size() + 1));
    if (rest.empty() || !std::isdigit(static_cast<unsigned char>(rest.front()))) return;
    copies_[first].insert(rest.substr(0, rest.find('.')));
    parts_.back().times = static_cast<int64_t>(copies_[first].size());
  }
  std::vector<ModelPart> parts() const { return parts_; }

 private:
  std::vector<ModelPart> parts_;
  std::map<std::string, std::set<std::string>> copies_;
};

ParameterFacts facts_of(const Model& model, const std::string& name, const at::Tensor& tensor) {
  ParameterFacts facts;
  facts.rows = tensor.dim() == 0 ? 1 : tensor.size(0);
  facts.width = tensor.numel() / std::max<int64_t>(1, facts.rows);
  facts.split = static_cast<int>(split_dim(model.plan(), name, tensor.dim()));
  return facts;
}

/// Elements of a group of parameters, and how many of them learn.
struct Counts {
  int64_t all = 0, trained = 0;
  void add(const at::Tensor& tensor) {
    all += tensor.numel();
    trained += tensor.requires_grad() ? tensor.numel() : 0;
  }
  double share() const { return all == 0 ? 0 : static_cast<double>(trained) / static_cast<double>(all); }
};

int64_t count_trained(const Model& model) {
  Counts counts;
  for (const auto& parameter : parameters_once(model)) counts.add(parameter.tensor);
  return counts.trained;
}

void sort_trained(const Model& model, ModelFacts& facts) {
  Counts all, tokens, embeddings, head;
  std::vector<Counts> blocks(static_cast<size_t>(facts.blocks));
  bool middle = false;
  for (const auto& [name, tensor] : parameters_once(model)) {
    const size_t unit = unit_of(name);
    all.add(tensor);
    (unit > 0                           ? blocks.at(unit - 1)
     : name == "embeddings.word.weight" ? tokens
     : name.starts_with("embeddings.")  ? embeddings
                                        : head)
        .add(tensor);
    middle |= tensor.requires_grad() && tensor.dim() > 1 && name.find(".contract.") != std::string::npos;
  }
  facts.total = all.all;
  facts.trained_total = all.trained;
  TrainedShares& trained = facts.trained;
  trained = {tokens.share(), embeddings.share(), head.share(), {}, 0, middle};
  for (const Counts& each : blocks) trained.blocks.push_back(each.share());
  while (!trained.below_blocks() && trained.first_block < facts.blocks &&
         blocks[trained.first_block].trained == 0)
    ++trained.first_block;
}

/// As `adapt` says; of its stages, as the one that trains most.
void adapt_unread(Recipe recipe, Model& model) {
  const auto start = open_start(recipe);
  StartModel::Fit fit;
  if (start) fit = said_at(recipe, "model.from", [&] { return start->fit(model); });
  adapt_or_follow(model, recipe, fit.fresh);
  int64_t most = count_trained(model), largest = 0;
  const auto first = next_stage(recipe, 0);
  for (auto step = first; step; step = next_stage(recipe, *step)) {
    adapt(model, recipe, fit.fresh, *step);
    const int64_t trained = count_trained(model);
    if (trained <= most) continue;
    most = trained;
    largest = *step;
  }
  if (first) adapt(model, recipe, fit.fresh, largest);
}

void sort_parameters(const Model& model, ModelFacts& facts) {
  PartCounter parts;
  for (const auto& [name, tensor] : parameters_once(model)) {
    parts.add(name, tensor.numel());
    const size_t unit = unit_of(name);
    if (unit > 1) continue;
    const ParameterFacts parameter = facts_of(model, name, tensor);
    if (name == "embeddings.word.weight") {
      facts.tokens = parameter;
    } else {
      auto& list = unit == 1 ? facts.block : name.starts_with("embeddings.") ? facts.embeddings : facts.head;
      list.push_back(parameter);
    }
  }
  facts.parts = parts.parts();
}

}  // namespace

ModelFacts look_at_model(const Recipe& recipe, int64_t vocab_size) {
  const int64_t written = recipe.model.integer("vocab_size").value_or(0);
  const int64_t known = written > 0 ? written : vocab_size > 0 ? vocab_size : usual_vocabulary(recipe);
  ModelFacts facts;
  static_cast<ModelShape&>(facts) = shape_of(recipe, known);
  const Heads heads = kind_of(recipe.objective).heads;
  facts.pair_head = heads.next_sentence;
  const ModelPtr model = make_model(recipe.model, {known, heads});
  adapt_unread(recipe, *model);
  sort_parameters(*model, facts);
  sort_trained(*model, facts);
  facts.optimizer_state = count_state(recipe, *model);
  facts.norm_embeddings = facts.dense_head;
  facts.final_norm = recipe.model.name() == "gpt" && recipe.model.integer("version") == 2;
  facts.keeps_attention = recipe.model.number("attention_dropout").value_or(0) > 0;
  facts.num_terms = facts.pair_head ? 2 : 1;
  return facts;
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

std::string bytes_text(double bytes) {
  if (bytes >= 999.5e9) return fmt::format("{:.2f} TB", bytes / 1e12);
  if (bytes >= 999.95e6) return fmt::format("{:.2f} GB", bytes / 1e9);
  if (bytes >= 99.95e3) return fmt::format("{:.1f} MB", bytes / 1e6);
  if (bytes >= 1e3) return fmt::format("{:.1f} kB", bytes / 1e3);
  return fmt::format("{:.0f} B", bytes);
}

std::string seconds_text(double seconds) {
  if (seconds >= 9.995) return fmt::format("{:.1f} s", seconds);
  if (seconds >= 0.9995) return fmt::format("{:.2f} s", seconds);
  return seconds >= 0.00995 ? fmt::format("{:.0f} ms", seconds * 1e3)
                            : fmt::format("{:.2f} ms", seconds * 1e3);
}

}  // namespace tessera
