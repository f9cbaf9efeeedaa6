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
    "names of parameters to train, shell style: * ? [a-z], where * also matches dots; with `last_blocks` "
    "empty "
    "too: all but what `freeze` names");
  v("last_blocks", t.last_blocks, "also train this many of the last blocks, and what follows them",
    at_least(0));
  v("freeze", t.freeze, "names of parameters that stay as they are, whatever the other keys say");
}
void check(const FreezeOptions& t, Problems& problems);

void freeze(Model& model, const FreezeOptions& options, const Recipe& recipe);

}  // namespace tessera
