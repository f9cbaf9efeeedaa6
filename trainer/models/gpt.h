#pragma once
#include "trainer/model.h"

namespace tessera {

struct GptConfig {
  int64_t version = 2;  ///< 1: norms after the residual sums, none at the end; 2: norms first
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

/// GPT-1 and GPT-2 (Radford et al., 2018 and 2019).
ModelPtr make_gpt(const GptConfig& config);

}  // namespace tessera
