#pragma once
#include "recipes/fields.h"
#include "trainer/model.h"

namespace tessera {

struct FreezeOptions {
  std::vector<std::string> train;
  int64_t last_blocks = 0;
  std::vector<std::string> freeze;
};
template <class V>
void fields(FreezeOptions& t, V& v) {
  v("train", t.train,
    "parameters to train: names in shell style, where * also matches dots, or a part of a name up to a dot "
    "at "
    "its beginning or end; with `last_blocks` empty too: all but what `freeze` names");
  v("last_blocks", t.last_blocks, "also train this many of the last blocks, and what follows them",
    at_least(0));
  v("freeze", t.freeze, "parameters that stay as they are, whatever the other keys say");
}
void check(const FreezeOptions& t, Problems& problems);

void freeze(Model& model, const FreezeOptions& options, const Recipe& recipe);

/// Freezes embeddings, blocks and the norm after them. Errors: Error where the model has no other parameters.
void train_heads(Model& model, const Recipe& recipe);

/// Whether a parameter is of a head: after the last block and its norm.
bool is_head(const std::string& name);

}  // namespace tessera
