#include "trainer/objectives/masking.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "recipes/error.h"
#include "recipes/random.h"

namespace tessera {

Masking::Masking(const MaskingConfig& config, TokenizerPtr tokenizer)
    : config_(config), tokenizer_(std::move(tokenizer)) {
  if (tokenizer_->special().mask < 0) {
    throw Error(
        "objective: masked language modelling needs a tokenizer with a [MASK] token, and this one has none");
  }
}

// What is hidden together: single tokens, or the pieces of a word.
std::vector<std::vector<int32_t>> Masking::units(const std::vector<int32_t>& tokens) const {
  const SpecialTokens& special = tokenizer_->special();
  std::vector<std::vector<int32_t>> units;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const int32_t token = tokens[i];
    if (token == special.cls || token == special.sep || token == special.pad) continue;
    const bool continues = config_.whole_word && !units.empty() && tokenizer_->continues_word(token) &&
                           units.back().back() + 1 == static_cast<int32_t>(i);
    if (!continues) units.emplace_back();
    units.back().push_back(static_cast<int32_t>(i));
  }
  return units;
}

Masked Masking::mask(const std::vector<int32_t>& tokens, uint64_t seed, int64_t sample) const {
  RandomStream random(seed, static_cast<uint64_t>(sample));
  std::vector<std::vector<int32_t>> candidates = units(tokens);
  for (size_t i = candidates.size(); i > 1; --i) {
    std::swap(candidates[i - 1], candidates[random.below(static_cast<uint32_t>(i))]);
  }
  const auto wanted =
      std::max(1L, std::lround(config_.mask_probability * static_cast<double>(tokens.size())));
  const auto limit =
      config_.max_predictions > 0 ? config_.max_predictions : std::numeric_limits<int64_t>::max();
  const auto count = static_cast<size_t>(std::min<int64_t>(limit, wanted));

  Masked result{tokens, {}, {}};
  for (const auto& unit : candidates) {
    // A word that is too long for what is left is passed over, as in the original.
    if (result.positions.size() + unit.size() > count) continue;
    result.positions.insert(result.positions.end(), unit.begin(), unit.end());
  }
  std::sort(result.positions.begin(), result.positions.end());
  for (const int32_t position : result.positions) {
    const auto at = static_cast<size_t>(position);
    result.labels.push_back(tokens[at]);
    const double draw = random.uniform();
    if (draw < 0.8) {
      result.tokens[at] = tokenizer_->special().mask;
    } else if (draw < 0.9) {
      result.tokens[at] = static_cast<int32_t>(random.below(static_cast<uint32_t>(tokenizer_->vocab_size())));
    }
  }
  return result;
}

}  // namespace tessera
