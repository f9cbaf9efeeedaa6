#pragma once
#include "recipes/fields.h"
#include "trainer/model.h"

namespace tessera {

struct BertConfig {
  std::optional<std::string> from;  ///< the folder whose weights it starts with
  int64_t num_layers = 12;
  int64_t hidden_size = 768;
  int64_t num_heads = 12;
  int64_t feed_forward_size = 3072;
  int64_t max_positions = 512;
  int64_t vocab_size = 0;  ///< 0: the tokenizer's
  int64_t type_vocab_size = 2;
  double dropout = 0.1;
  double attention_dropout = 0;
  double layer_norm_epsilon = 1e-12;
  double initializer_range = 0.02;
  Activation activation = Activation::gelu_erf;
};

template <class V>
void fields(BertConfig& t, V& v) {
  v("from", t.from, start_docs, changeable);
  v("num_layers", t.num_layers, "transformer blocks", at_least(1));
  v("hidden_size", t.hidden_size, "width of the hidden states", at_least(1));
  v("num_heads", t.num_heads, "attention heads; must divide hidden_size", at_least(1));
  v("feed_forward_size", t.feed_forward_size, "width between the two feed-forward layers", at_least(1));
  v("max_positions", t.max_positions, "the longest sequence that the model can read, in tokens", at_least(1));
  v("vocab_size", t.vocab_size, "rows of the table of tokens; 0: as many as the tokenizer has", at_least(0));
  v("type_vocab_size", t.type_vocab_size, "kinds of segments", at_least(1));
  v("dropout", t.dropout, "share of hidden elements set to zero", range(0, 1));
  v("attention_dropout", t.attention_dropout,
    "share of attention probabilities set to zero; above 0 attention keeps all of them in memory",
    range(0, 1));
  v("layer_norm_epsilon", t.layer_norm_epsilon, "added to variances", above(0));
  v("initializer_range", t.initializer_range, "standard deviation of the initial weights", above(0));
  v("activation", t.activation, "between the two feed-forward layers");
}
void check(const BertConfig& t, Problems& problems);

/// BERT (Devlin et al., 2018).
ModelPtr make_bert(const BertConfig& config, const Heads& heads = {.next_sentence = true});

}  // namespace tessera
