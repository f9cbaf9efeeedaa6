#pragma once
#include "parallel/attention_block.h"
#include "parallel/context_attention.h"

namespace tessera {

/// Query, key and value as context_attention takes them, and their gradients.
struct AttentionInput {
  at::Tensor query, key, value;
};

/// What context_attention does, by method, for groups of two and more. Arguments are checked.
at::Tensor ring_attention(const AttentionInput& input, const Communicator& group,
                          const ContextAttentionOptions& options);
at::Tensor ulysses_attention(const AttentionInput& input, const Communicator& group,
                             const ContextAttentionOptions& options);

/// Attention to the whole sequence on this rank alone.
at::Tensor whole_attention(const AttentionInput& input, const ContextAttentionOptions& options);

/// Masks of some queries and keys. Undefined: nothing is masked.
struct MaskParts {
  at::Tensor key_mask;                        ///< [batch, keys]
  at::Tensor query_documents, key_documents;  ///< [batch, queries], [batch, keys]
};

/// [batch, 1, queries or 1, keys] bool, true: may be attended to. Undefined where nothing is masked.
at::Tensor allowed_keys(const MaskParts& parts);

/// Without the keys behind each query's own, of as many keys as queries.
at::Tensor causally_allowed(const at::Tensor& allowed);

}  // namespace tessera
