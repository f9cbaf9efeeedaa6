#pragma once
#include "recipes/fields.h"
#include "trainer/model.h"

namespace tessera {

/// Of the key `layer_decay` that several methods have.
constexpr const char* decay_docs =
    "factor of the learning rate per block from the end: heads 1, the last block this, the one before its "
    "square, "
    "embeddings the least";

/// What is trained, from a step on.
struct FreezeStage {
  int64_t step = 0;
  std::vector<std::string> train;
  int64_t last_blocks = 0;
  std::vector<std::string> freeze;
};
template <class V>
void choice_fields(FreezeStage& t, V& v) {
  v("train", t.train,
    "parameters to train: names in shell style, where * also matches dots, or a part of a name up to a dot "
    "at "
    "its beginning or end; with `last_blocks` empty too: all but what `freeze` names");
  v("last_blocks", t.last_blocks, "also train this many of the last blocks, and what follows them",
    at_least(0));
  v("freeze", t.freeze, "parameters that stay as they are, whatever the other keys say");
}
template <class V>
void fields(FreezeStage& t, V& v) {
  v("step", t.step, "begins after this step, with fresh optimizer state for what joins", required,
    at_least(1));
  choice_fields(t, v);
}
void check(const FreezeStage& t, Problems& problems);

/// The first stage's choice, and those after it.
struct FreezeOptions : FreezeStage {
  std::vector<FreezeStage> stages;
  double layer_decay = 1;
};
template <class V>
void fields(FreezeOptions& t, V& v) {
  choice_fields(t, v);
  v("stages", t.stages, "list of {step, train, last_blocks, freeze}: what is trained from later steps on");
  v("layer_decay", t.layer_decay, decay_docs, above(0));
}
void check(const FreezeOptions& t, Problems& problems);

/// Which stage a step belongs to: 0, or 1 + a place in `stages`.
size_t stage_of(const FreezeOptions& options, int64_t step);
/// The stage since which a parameter has been trained without a break, as seen from `stage`, where it is.
size_t trained_since(const FreezeOptions& options, size_t stage, const std::string& parameter,
                     int64_t num_blocks);

void freeze(Model& model, const FreezeOptions& options, size_t stage, const Recipe& recipe);

/// Freezes embeddings, blocks and the norm after them. Errors: Error where the model has no other parameters.
void train_heads(Model& model, const Recipe& recipe);

/// Whether a parameter is of a head: after the last block and its norm.
bool is_head(const std::string& name);

}  // namespace tessera
