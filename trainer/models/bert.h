#pragma once
#include "trainer/model.h"

namespace tessera {

struct BertConfig {
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
  bool next_sentence = true;  ///< with pooler and sentence-pair head
};

/// BERT with its pre-training heads (Devlin et al., 2018).
ModelPtr make_bert(const BertConfig& config);

}  // namespace tessera
