#pragma once
#include "datasets/tokenizer.h"
#include "recipes/registry.h"
#include "trainer/objective.h"

namespace tessera {

/// How tokens are hidden for masked language modelling (google-research/bert, create_pretraining_data.py).
struct MaskingConfig {
  double mask_probability = 0.15;
  int64_t max_predictions = 0;  ///< per sample; 0 = no limit
  bool whole_word = false;      ///< hide all pieces of a word together
};

template <class V>
void fields(MaskingConfig& t, V& v) {
  v("mask_probability", t.mask_probability, "share of the tokens to predict", range(0, 1), new_phase);
  v("max_predictions", t.max_predictions, "at most so many per sample; 0: no limit", at_least(0), new_phase);
  v("whole_word", t.whole_word, "hide all pieces of a word together", new_phase);
}

struct CausalConfig {};
template <class V>
void fields(CausalConfig&, V&) {}

/// What an objective needs to know of the run.
struct ObjectiveSetting {
  TokenizerPtr tokenizer;
  int64_t sequence_length = 0;  ///< longer examples are cut
  uint64_t seed = 0;
};

/// Every objective: its name in recipes and its options.
const ChoiceTable& objective_choices();
ObjectivePtr make_objective(const Choice& choice, const ObjectiveSetting& setting);

ObjectivePtr make_masked_lm(const MaskingConfig& config, bool next_sentence, const ObjectiveSetting& setting);
ObjectivePtr make_causal_lm(const ObjectiveSetting& setting);

}  // namespace tessera
