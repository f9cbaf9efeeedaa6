#pragma once
#include "recipes/registry.h"
#include "trainer/model.h"

namespace tessera {

/// What a model needs to know of the run beside its own section.
struct ModelSetting {
  int64_t vocab_size = 0;  ///< the tokenizer's
  Heads heads = {};        ///< Objective::heads()
};

/// Every model family: its name in recipes and its options.
const ChoiceTable& model_choices();

/// A model on the CPU in float32 whose parameters are not set yet (initialise() or a checkpoint does that).
/// Errors: Error where the recipe's vocab_size is smaller than the tokenizer's.
ModelPtr make_model(const Choice& choice, const ModelSetting& setting);

}  // namespace tessera
