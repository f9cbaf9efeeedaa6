#pragma once
#include <functional>
#include <string>
#include <vector>

#include "datasets/tokenizer.h"
#include "trainer/model.h"
#include "trainer/sampling.h"

namespace tessera {

struct GenerateOptions {
  SamplingOptions sampling;
  int64_t max_tokens = 100;  ///< new tokens per prompt at most; the longest prompt and it fit max_positions
  int32_t end = -1;          ///< stops after this token; -1: none
  uint64_t seed = 1;         ///< each prompt draws from its own stream, whatever else is in the batch
  int64_t first_prompt = 0;  ///< number of prompts[0] in the whole input, for its stream
};

/// Called for each new token of prompt `row` as soon as it is known (the end token not included).
using TokenSink = std::function<void(size_t row, int32_t token)>;

/// Continues all prompts at once; returns the new tokens of each, without the end token. Errors: Error for an
/// empty prompt or one that fills all positions, and for a model that does not generate.
std::vector<std::vector<int32_t>> generate(const Model& model,
                                           const std::vector<std::vector<int32_t>>& prompts,
                                           const GenerateOptions& options, const TokenSink& sink = {});

struct MaskGuess {
  int32_t token;
  double probability;
};
/// For each `mask` among the tokens, in order, its `best` likeliest tokens by falling probability. `tokens`:
/// a whole input, special tokens included. Errors: Error where there is no mask or the input is too long.
std::vector<std::vector<MaskGuess>> fill_mask(const Model& model, const std::vector<int32_t>& tokens,
                                              int32_t mask, int64_t best);

/// Text of a growing list of tokens, given out as it becomes certain: a character split over several
/// byte-level tokens is held back until it is whole.
class TextStream {
 public:
  explicit TextStream(TokenizerPtr tokenizer) : tokenizer_(std::move(tokenizer)) {}
  std::string add(int32_t token);  ///< the text that this token makes certain
  std::string finish();            ///< what was held back

 private:
  TokenizerPtr tokenizer_;
  std::vector<int32_t> tokens_;
  std::string given_;
};

}  // namespace tessera
