#include "trainer/adapt/lora.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "recipes/error.h"
#include "trainer/adapt/patterns.h"
#include "trainer/blocks/attention.h"
#include "trainer/blocks/layers.h"
#include "trainer/blocks/lora.h"

namespace tessera {
namespace {

constexpr const char* joined_suffix = ".query_key_value";
constexpr const char* word_table = "embeddings.word";

template <class M>
M* module_named(const Model& model, const std::string& name) {
  const auto modules = model.named_modules("", /*include_self=*/false);
  const auto* found = modules.find(name);
  return found ? dynamic_cast<M*>(found->get()) : nullptr;
}

/// The name in Hugging Face's layout of what holds exactly these layers.
std::string hugging_face_name(const NameMap& map, const std::vector<std::string>& layers) {
  for (const auto& entry : map) {
    bool same = entry.names.size() == layers.size();
    for (size_t i = 0; same && i < layers.size(); ++i) same = entry.names[i] == layers[i] + ".weight";
    const std::string end = ".weight";
    if (same) return entry.key.substr(0, entry.key.size() - end.size());
  }
  return "";
}

LoraConfig config_of(const LoraOptions& options, const LoraTarget& target) {
  int64_t rank = options.rank;
  double alpha = options.alpha;
  for (const LoraPattern& other : options.patterns) {
    if (!pattern_means(other.pattern, target.name) && !pattern_means(other.pattern, target.hugging_face))
      continue;
    rank = other.rank.value_or(rank);
    alpha = other.alpha.value_or(alpha);
  }
  const auto wide = static_cast<double>(rank);
  return {rank, alpha / (options.rank_stabilized ? std::sqrt(wide) : wide), options.dropout, options.dora};
}

std::vector<std::string> names_of_targets(const std::vector<LoraTarget>& targets) {
  std::vector<std::string> names;
  for (const auto& target : targets) names.push_back(target.name);
  return names;
}

/// Those that the patterns mean.
std::vector<LoraTarget> chosen_targets(const std::vector<LoraTarget>& all, const LoraOptions& options,
                                       const Recipe& recipe) {
  const bool joined = std::any_of(all.begin(), all.end(), [](const LoraTarget& target) {
    return target.layers.size() > 1 && !target.hugging_face.empty();
  });
  std::vector<std::string> wanted = options.targets;
  if (wanted.empty())
    wanted =
        joined ? std::vector<std::string>{"query_key_value"} : std::vector<std::string>{"query", "value"};
  Patterns patterns("adapt.targets", wanted);
  std::vector<LoraTarget> chosen;
  std::set<std::string> taken;
  for (const auto& target : all) {
    if (!patterns.match({target.name, target.hugging_face})) continue;
    for (const auto& layer : target.layers) {
      if (taken.insert(layer).second) continue;
      throw recipe.error("adapt.targets", fmt::format("mean {} twice: alone, and in {}; valid: one of them",
                                                      layer, target.name));
    }
    chosen.push_back(target);
  }
  patterns.expect_all_used("layers", names_of_targets(all), recipe);
  std::vector<std::string> others;
  for (const auto& other : options.patterns) others.push_back(other.pattern);
  Patterns special("adapt.patterns", others);
  for (const auto& target : chosen) special.match({target.name, target.hugging_face});
  special.expect_all_used("layers that get a low-rank part", names_of_targets(chosen), recipe);
  return chosen;
}

/// Gives a layer its low-rank part, without memory.
void add_lora(Model& model, const LoraTarget& target, const LoraConfig& config) {
  if (target.layers.size() > 1) {
    const size_t end = target.name.size() - std::string(joined_suffix).size();
    return module_named<Attention>(model, target.name.substr(0, end))->add_lora(config);
  }
  if (auto* table = module_named<Embedding>(model, target.name)) {
    LoraConfig plain = config;
    plain.dora = false;  // a row of a table has no magnitude of its own in the paper
    table->lora = table->register_module("lora", std::make_shared<Lora>(target.name, plain));
    return table->lora->add_table(table->weight.size(0), table->weight.size(1));
  }
  auto* layer = module_named<Linear>(model, target.name);
  layer->lora = layer->register_module("lora", std::make_shared<Lora>(target.name, config));
  layer->lora->add_input(layer->weight.size(1));
  layer->lora->add_output(layer->weight.size(0));
}

}  // namespace

std::vector<LoraTarget> lora_targets(const Model& model, const std::vector<std::string>& fresh) {
  std::vector<LoraTarget> targets;
  const NameMap map = model.name_map();
  const auto add = [&](const std::string& name, const std::vector<std::string>& layers) {
    targets.push_back({name, hugging_face_name(map, layers), layers});
  };
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    const std::string& name = item.key();
    const bool layer = dynamic_cast<Linear*>(item.value().get()) != nullptr || name == word_table;
    const bool drawn = std::find(fresh.begin(), fresh.end(), name + ".weight") != fresh.end();
    if (layer && !drawn) add(name, {name});
    if (!dynamic_cast<Attention*>(item.value().get())) continue;
    add(name + joined_suffix, {name + ".query", name + ".key", name + ".value"});
  }
  return targets;
}

void give_lora(Model& model, const LoraOptions& options) {
  for (const auto& target : lora_targets(model, {})) {
    const auto& names = options.targets;
    if (std::find(names.begin(), names.end(), target.name) == names.end()) continue;
    add_lora(model, target, config_of(options, target));
  }
}

void remove_lora(Model& model, bool tables) {
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    auto& module = *item.value();
    if (!module.named_children().contains("lora")) continue;
    auto* table = dynamic_cast<Embedding*>(&module);
    if (table && !tables) continue;
    module.unregister_module("lora");
    if (table) table->lora.reset();
    if (auto* layer = dynamic_cast<Linear*>(&module)) layer->lora.reset();
  }
}

void lora(Model& model, const LoraOptions& options, const std::vector<std::string>& fresh,
          const Recipe& recipe) {
  const std::vector<LoraTarget> targets = chosen_targets(lora_targets(model, fresh), options, recipe);
  std::vector<std::string> names;
  for (const auto& [name, tensor] : parameters_once(model)) names.push_back(name);
  for (const auto& target : targets) add_lora(model, target, config_of(options, target));

  std::set<std::string> biases;
  for (const auto& target : targets) {
    for (const auto& layer : target.layers) biases.insert(layer + ".bias");
  }
  Patterns whole("adapt.modules_to_save", options.modules_to_save);
  for (const auto& [name, tensor] : parameters_once(model)) {
    const bool bias = options.bias == LoraBias::all
                          ? name.ends_with("bias")
                          : options.bias == LoraBias::lora_only && biases.contains(name);
    const bool drawn = std::find(fresh.begin(), fresh.end(), name) != fresh.end();
    const bool low_rank = is_low_rank(name);
    const bool saved = !low_rank && whole.match(name);
    at::Tensor(tensor).set_requires_grad(low_rank || drawn || bias || saved);
  }
  whole.expect_all_used("parameters", names, recipe);
}

std::vector<std::pair<std::string, Lora*>> lora_parts(const Model& model) {
  std::vector<std::pair<std::string, Lora*>> parts;
  const std::string end = ".lora";
  for (const auto& item : model.named_modules("", /*include_self=*/false)) {
    if (auto* part = dynamic_cast<Lora*>(item.value().get())) {
      parts.emplace_back(item.key().substr(0, item.key().size() - end.size()), part);
    }
  }
  return parts;
}

}  // namespace tessera
