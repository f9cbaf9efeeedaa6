#pragma once
#include <string>
#include <vector>

#include "recipes/fields.h"
#include "recipes/recipe.h"
#include "trainer/model.h"

namespace tessera {

/// Another rank or alpha for some of the layers.
struct LoraPattern {
  std::string pattern;
  std::optional<int64_t> rank;
  std::optional<double> alpha;
};
template <class V>
void fields(LoraPattern& t, V& v) {
  v("pattern", t.pattern, "names of layers, as in `targets`", required);
  v("rank", t.rank, "theirs; null: as the others", at_least(1));
  v("alpha", t.alpha, "theirs; null: as the others", above(0));
}

enum class LoraBias { none, all, lora_only };
inline std::vector<std::string> names_of(LoraBias) { return {"none", "all", "lora_only"}; }

struct LoraOptions {
  int64_t rank = 8;
  double alpha = 16;
  double dropout = 0;
  std::vector<std::string> targets;
  std::vector<LoraPattern> patterns;
  LoraBias bias = LoraBias::none;
  std::vector<std::string> modules_to_save;
  bool rank_stabilized = false;
  bool dora = false;
  double rate_ratio = 1;
  std::optional<std::string> from;
};
template <class V>
void fields(LoraOptions& t, V& v) {
  v("rank", t.rank, "of the low-rank parts", at_least(1));
  v("alpha", t.alpha, "their products are scaled by alpha / rank", above(0));
  v("dropout", t.dropout, "share of their inputs set to zero", range(0, 1));
  v("targets", t.targets,
    "layers that get one: names in shell style, or a part up to a dot at the beginning or end (`query`); our "
    "names or those of Hugging Face (`c_attn`); empty: query and value, in GPT query_key_value");
  v("patterns", t.patterns,
    "list of {pattern, rank, alpha}: other values for some layers; the last that fits");
  v("bias", t.bias, "biases to train too: `lora_only` those of the layers with a low-rank part");
  v("modules_to_save", t.modules_to_save,
    "parameters to train in full, as in `train` of the method freeze; heads drawn anew are trained anyway");
  v("rank_stabilized", t.rank_stabilized, "scale by alpha / sqrt(rank) instead (rsLoRA)");
  v("dora", t.dora, "also learn the magnitude of each output's weights (DoRA)");
  v("rate_ratio", t.rate_ratio, "learning rate of the b parts over that of the a parts (LoRA+)", changeable,
    above(0));
  v("from", t.from, "folder of an adapter that PEFT or `tessera export` left, to go on with", changeable);
}

/// One layer, or the three of an attention together, that can have a low-rank part.
struct LoraTarget {
  std::string name;          ///< ours: "layers.0.attention.query", "layers.0.attention.query_key_value"
  std::string hugging_face;  ///< theirs: "bert.encoder.layer.0.attention.self.query"; "" where there is none
  std::vector<std::string> layers;  ///< the names of the layers
};
/// Of a model without low-rank parts, but for those in `fresh` (names of parameters).
std::vector<LoraTarget> lora_targets(const Model& model, const std::vector<std::string>& fresh);

/// Gives a model the low-rank parts that the options say, without memory; they mean existing layers.
void give_lora(Model& model, const LoraOptions& options);
/// Takes all of them off; `tables`: those of embeddings too.
void remove_lora(Model& model, bool tables);

/// Freezes the model but for what the options say and for `fresh`, parameters that the start lacked. Errors:
/// Error with the recipe's place where a pattern matches nothing, or two targets have a layer in common.
void lora(Model& model, const LoraOptions& options, const std::vector<std::string>& fresh,
          const Recipe& recipe);

/// The low-rank parts of a model by the name of the layer ("layers.0.attention.query"; the whole attention
/// where query, key and value share one: "layers.0.attention").
std::vector<std::pair<std::string, Lora*>> lora_parts(const Model& model);

}  // namespace tessera
