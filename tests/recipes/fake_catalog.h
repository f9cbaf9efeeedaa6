#pragma once
#include <string>

#include "recipes/recipe.h"

/// A small catalog for tests of the reading itself; the real one lies in trainer/.
namespace tessera::fake {

struct Bert {
  int64_t num_layers = 12, hidden_size = 768, num_heads = 12, max_positions = 512;
  double dropout = 0.1;
};
template <class V>
void fields(Bert& t, V& v) {
  v("num_layers", t.num_layers, "number of layers", range(1, 1000));
  v("hidden_size", t.hidden_size, "width of the hidden states", at_least(1));
  v("num_heads", t.num_heads, "attention heads", at_least(1));
  v("max_positions", t.max_positions, "longest sequence", at_least(1));
  v("dropout", t.dropout, "hidden dropout", changeable, at_least(0), below(1));
}
inline void check(const Bert& t, Problems& problems) {
  if (t.hidden_size % t.num_heads != 0) problems.add("hidden_size", "is not divisible by num_heads");
}

struct Gpt {
  int64_t num_layers = 12;
};
template <class V>
void fields(Gpt& t, V& v) {
  v("num_layers", t.num_layers, "number of layers", range(1, 1000));
}

struct Masked {
  double mask_probability = 0.15;
};
template <class V>
void fields(Masked& t, V& v) {
  v("mask_probability", t.mask_probability, "share of masked tokens", above(0), below(1));
}

struct Nothing {};
template <class V>
void fields(Nothing&, V&) {}

struct AdamW {
  double learning_rate = 0, beta2 = 0.999;
};
template <class V>
void fields(AdamW& t, V& v) {
  v("learning_rate", t.learning_rate, "peak learning rate", required, above(0));
  v("beta2", t.beta2, "decay of the second moment", range(0, 1));
}

struct Sgd {
  double learning_rate = 0, momentum = 0.9;
};
template <class V>
void fields(Sgd& t, V& v) {
  v("learning_rate", t.learning_rate, "peak learning rate", required, above(0));
  v("momentum", t.momentum, "momentum", range(0, 1));
}

struct Linear {
  StepsOrPercent warm_up;
};
template <class V>
void fields(Linear& t, V& v) {
  v("warm_up", t.warm_up, "steps in which the learning rate rises");
}

inline Catalog catalog() {
  Catalog all;
  all.model = {"family", {choice<Bert>("bert", "an encoder"), choice<Gpt>("gpt", "a decoder")}};
  all.objective = {"name",
                   {choice<Masked>("mlm", "masked words"), choice<Nothing>("causal_lm", "the next word")}};
  all.optimizer = {"name", {choice<AdamW>("adamw", "AdamW"), choice<Sgd>("sgd", "SGD")}};
  all.schedule = {"name",
                  {choice<Nothing>("constant", "constant"), choice<Linear>("linear", "linear decay")}};
  all.adapt = {"method", {choice<Nothing>("full", "all parameters")}, "full"};
  all.checks.push_back([](const Recipe& recipe, Problems& problems) {
    if (recipe.objective.name() == "causal_lm" && recipe.model.name() != "gpt") {
      problems.add("objective.name", "causal_lm needs a decoder; valid: mlm");
    }
  });
  return all;
}

/// A recipe without mistakes; tests change its lines.
inline const std::string good = R"(run: {folder: runs/test}
model: {family: bert, num_layers: 4, hidden_size: 256, num_heads: 4, max_positions: 128}
objective: {name: mlm}
data:
  train: data/train.h5
  sequence_length: 128
optimizer: {name: adamw, learning_rate: 5e-4}
schedule: {name: linear, warm_up: 5%}
train:
  steps: 2000
  global_batch: 64
  micro_batch: 32
)";

}  // namespace tessera::fake
