#pragma once
#include <cstdint>

#include "recipes/recipe.h"

namespace tessera {

/// What a model must have to be divided as `parallel` says; needs no number of ranks.
void check_parallel(const Recipe& recipe, Problems& problems);

/// A vocabulary that only the data tell. Error where the tensor axis is larger.
void check_vocabulary(const Recipe& recipe, int64_t vocab_size);

/// "1, 2, 4": what divides `number`.
std::string divisors(int64_t number);

/// The largest divisor of `number` that is at most `limit` (at least 1).
int64_t divisor_up_to(int64_t number, int64_t limit);

}  // namespace tessera
