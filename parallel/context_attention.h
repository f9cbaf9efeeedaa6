#pragma once
#include <ATen/core/Tensor.h>

#include "parallel/communicator.h"
#include "parallel/context_layout.h"
#include "recipes/parallel_kinds.h"

namespace tessera {

/// Whether the ranks hold zigzag positions (parallel/context_layout.h) rather than a chunk each.
inline bool context_zigzag(ContextMethod method, bool causal) {
  return causal && method == ContextMethod::ring;
}

/// The ranks that divide each sequence among them, and how attention sees all of it.
struct ContextSplit {
  Communicator group;
  ContextMethod method = ContextMethod::ring;
};

struct ContextAttentionOptions {
  ContextMethod method = ContextMethod::ring;
  bool causal = false;
  at::Tensor key_mask;  ///< [batch, whole sequence] bool, in order of positions, the same on all ranks; true:
                        ///< may be attended to; undefined: all
  at::Tensor documents;  ///< [batch, whole sequence] int64, likewise: a query attends only to keys of its own
                         ///< document; undefined: all
};

/// Scaled dot-product attention over a sequence divided among the ranks of `group`. query, key, value:
/// [batch, heads, local sequence, head_size], of any strides, of float32, float64, bfloat16 or float16, at
/// this rank's positions -> the same shape and type. Queries without any key get zeros. Differentiable in all
/// three; forward and backward are called by all ranks of the group, backward in the reverse order. A group
/// of one sends nothing. Throws std::logic_error where shapes or types do not fit, where the heads cannot be
/// divided among the ranks (ulysses), or half the local sequence (causal ring).
at::Tensor context_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                             const Communicator& group, const ContextAttentionOptions& options);

}  // namespace tessera
