#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "datasets/tokenizer.h"
#include "trainer/model.h"

namespace tessera {

// Multiple choice by the likelihood of each choice, by the conventions of EleutherAI's lm-evaluation-harness
// (lm_eval/api/model.py, lm_eval/models/huggingface.py, lm_eval/api/task.py at 4e7e0d4).

/// What a causal model reads, and how many tokens at its end are scored; at least one token is before them.
struct ScoredText {
  std::vector<int32_t> tokens;
  int64_t scored = 0;
};

/// Makes tokens of a context and its continuation.
class ScoredTextEncoder {
 public:
  /// `max_positions`: of the model.
  ScoredTextEncoder(TokenizerPtr tokenizer, int64_t max_positions);

  /// White space at the end of the context counts as the continuation's. Both are tokenised together, and
  /// what comes after the context's own number of tokens is scored. Begins with a token where the tokenizer's
  /// template has one; an empty context is the token that texts begin with, or end with. What the model
  /// cannot read is cut off on the left. Errors: Error where no token would be scored, or more than the model
  /// reads, and for an empty context without such a token.
  ScoredText encode(const std::string& context, const std::string& continuation) const;

 private:
  std::vector<int32_t> whole(const std::string& text) const;
  ScoredText without_context(const std::string& continuation) const;

  TokenizerPtr tokenizer_;
  size_t max_positions_;
  int32_t template_begin_ = -1;  // what the tokenizer's template puts before a text
};

/// The sum of the log-probabilities of each text's scored tokens, in nats. `micro_batch` texts are computed
/// at a time, longest first; equal inputs once. The model must be causal: texts are padded at their end.
std::vector<double> log_likelihoods(const Model& model, const std::vector<ScoredText>& texts,
                                    int64_t micro_batch);

/// A question's choices, scored.
struct ScoredChoices {
  std::vector<double> log_likelihoods;  ///< one per choice
  std::vector<double> lengths;          ///< of the choices, above 0, in the unit to normalise by
  size_t answer = 0;

  size_t prediction() const;             ///< the likeliest choice, the first of equals
  size_t normalized_prediction() const;  ///< that of the largest log-likelihood divided by the length
};

/// A mean over questions, and the standard error of it (sample deviation by the root of their number; NaN for
/// one question).
struct MeanWithError {
  double mean = 0, error = 0;
};

/// The harness's acc, acc_norm and, of its perplexity, the negated logarithm; of at least one question.
struct FewShotReport {
  MeanWithError accuracy, normalized_accuracy;
  MeanWithError log_likelihood;  ///< of the right choices, nats
};
FewShotReport summarise(const std::vector<ScoredChoices>& questions);

}  // namespace tessera
