#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "recipes/random.h"

namespace tessera {

/// How the next token is chosen from its logits; defaults sample from the model's own distribution.
struct SamplingOptions {
  double temperature = 1;  ///< 0: the likeliest token, always
  int64_t top_k = 0;       ///< only the k likeliest; 0: all
  double top_p = 1;        ///< only the likeliest that together have this probability (Holtzman et al. 2020)
  double repetition_penalty = 1;  ///< of tokens that were there before (Keskar et al., "CTRL", 2019)
};

/// Logits [vocab] after penalty, temperature, top-k and top-p, in this order, as transformers' processors;
/// what is excluded is -infinity. float32 on the CPU. `context`: the tokens so far, prompt included.
at::Tensor filter_logits(const at::Tensor& logits, const std::vector<int32_t>& context,
                         const SamplingOptions& options);

/// The likeliest token if temperature is 0, otherwise one drawn from the filtered distribution.
int32_t choose_token(const at::Tensor& logits, const std::vector<int32_t>& context,
                     const SamplingOptions& options, RandomStream& random);

}  // namespace tessera
