#pragma once
#include <cstdint>
#include <vector>

#include "datasets/tokenizer.h"
#include "trainer/objectives/objectives.h"

namespace tessera {

struct Masked {
  std::vector<int32_t> tokens;     ///< with masks in
  std::vector<int32_t> positions;  ///< ascending
  std::vector<int32_t> labels;     ///< the original ids there
};

/// Hides tokens: of the positions that are not [CLS], [SEP] or [PAD], n = min(max_predictions, max(1,
/// round(probability x length))) are to be predicted; 80 % of them become [MASK], 10 % a random token of the
/// whole vocabulary, 10 % stay.
class Masking {
 public:
  /// Error where the tokenizer has no [MASK].
  Masking(const MaskingConfig& config, TokenizerPtr tokenizer);
  /// A pure function of its arguments.
  Masked mask(const std::vector<int32_t>& tokens, uint64_t seed, int64_t sample) const;

 private:
  std::vector<std::vector<int32_t>> units(const std::vector<int32_t>& tokens) const;

  MaskingConfig config_;
  TokenizerPtr tokenizer_;
};

}  // namespace tessera
