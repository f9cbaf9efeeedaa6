#pragma once
#include "recipes/fields.h"
#include "trainer/model.h"

namespace tessera {

struct GptConfig {
  std::optional<std::string> from;  ///< the folder whose weights it starts with
  int64_t version = 2;              ///< 1: norms after the residual sums, none at the end; 2: norms first
  int64_t num_layers = 12;
  int64_t hidden_size = 768;
  int64_t num_heads = 12;
  int64_t feed_forward_size = 0;  ///< 0: four times hidden_size
  int64_t max_positions = 1024;
  int64_t vocab_size = 0;  ///< 0: the tokenizer's
  double dropout = 0.1;
  double attention_dropout = 0;
  double layer_norm_epsilon = 1e-5;
  double initializer_range = 0.02;
  Activation activation = Activation::gelu_tanh;
};

template <class V>
void fields(GptConfig& t, V& v) {
  v("from", t.from, start_docs, changeable);
  v("version", t.version, "1: GPT-1, norms after the residual sums; 2: GPT-2, norms first", range(1, 2));
  v("num_layers", t.num_layers, "transformer blocks", at_least(1));
  v("hidden_size", t.hidden_size, "width of the hidden states", at_least(1));
  v("num_heads", t.num_heads, "attention heads; must divide hidden_size", at_least(1));
  v("feed_forward_size", t.feed_forward_size,
    "width between the two feed-forward layers; 0: four times hidden_size", at_least(0));
  v("max_positions", t.max_positions, "the longest sequence that the model can read, in tokens", at_least(1));
  v("vocab_size", t.vocab_size, "rows of the table of tokens; 0: as many as the tokenizer has", at_least(0));
  v("dropout", t.dropout, "share of hidden elements set to zero", range(0, 1));
  v("attention_dropout", t.attention_dropout,
    "share of attention probabilities set to zero; above 0 attention keeps all of them in memory",
    range(0, 1));
  v("layer_norm_epsilon", t.layer_norm_epsilon, "added to variances", above(0));
  v("initializer_range", t.initializer_range, "standard deviation of the initial weights", above(0));
  v("activation", t.activation, "between the two feed-forward layers");
}
void check(const GptConfig& t, Problems& problems);

/// GPT-1 and GPT-2 (Radford et al., 2018 and 2019).
ModelPtr make_gpt(const GptConfig& config, const Heads& heads = {});

}  // namespace tessera
