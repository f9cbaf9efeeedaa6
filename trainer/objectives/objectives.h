#pragma once
#include "datasets/tokenizer.h"
#include "trainer/objective.h"

namespace tessera {

/// How tokens are hidden for masked language modelling (google-research/bert, create_pretraining_data.py).
struct MaskingConfig {
  double mask_probability = 0.15;
  int64_t max_predictions = 0;  ///< per sample; 0 = no limit
  bool whole_word = false;      ///< hide all pieces of a word together
};

/// What an objective needs to know of the run.
struct ObjectiveSetting {
  TokenizerPtr tokenizer;
  int64_t sequence_length = 0;  ///< longer examples are cut
  uint64_t seed = 0;
};

ObjectivePtr make_masked_lm(const MaskingConfig& config, bool next_sentence, const ObjectiveSetting& setting);
ObjectivePtr make_causal_lm(const ObjectiveSetting& setting);

}  // namespace tessera
