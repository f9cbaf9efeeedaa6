#pragma once
#include "datasets/tokenizer.h"
#include "recipes/recipe.h"
#include "trainer/objective.h"
#include "trainer/objectives/task_options.h"

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
  bool causal = false;                     ///< the model sees only what came before
  std::vector<std::string> training = {};  ///< files to find a task's labels in, where the recipe names none
};
/// What a recipe says of it. `with_data`: look for labels in its training data.
ObjectiveSetting objective_setting(const Recipe& recipe, TokenizerPtr tokenizer, bool with_data = false);

/// What an objective's section alone tells.
struct ObjectiveKind {
  Heads heads;                        ///< as Objective::heads(); a guess where only the data know the labels
  bool reads_records = false;         ///< opens its files itself (Objective::open())
  std::vector<std::string> families;  ///< models that it fits
};
ObjectiveKind kind_of(const Choice& objective);

/// Every objective: its name in recipes and its options.
const ChoiceTable& objective_choices();
ObjectivePtr make_objective(const Choice& choice, const ObjectiveSetting& setting);

ObjectivePtr make_masked_lm(const MaskingConfig& config, bool next_sentence, const ObjectiveSetting& setting);
ObjectivePtr make_causal_lm(const ObjectiveSetting& setting);
ObjectivePtr make_sequence_classification(const SequenceClassificationOptions& options,
                                          const ObjectiveSetting& setting);
ObjectivePtr make_token_classification(const TokenClassificationOptions& options,
                                       const ObjectiveSetting& setting);
ObjectivePtr make_question_answering(const QuestionAnsweringOptions& options,
                                     const ObjectiveSetting& setting);
ObjectivePtr make_multiple_choice(const MultipleChoiceOptions& options, const ObjectiveSetting& setting);
ObjectivePtr make_instruction(const InstructionOptions& options, const ObjectiveSetting& setting);

}  // namespace tessera
