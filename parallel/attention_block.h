#pragma once
#include <ATen/core/Tensor.h>

#include <array>

namespace tessera {

/// Which keys the queries of a block may attend to.
struct BlockMask {
  at::Tensor bias;  ///< [batch or 1, 1, queries or 1, keys]: 0 or -inf, of masking_bias(); undefined: all
  at::Tensor empty_rows;  ///< [batch or 1, 1, queries or 1] bool: no key at all; undefined where bias is
  bool causal = false;    ///< query i sees the keys 0 to i only, of as many; a bias must say so as well
};

/// Some queries and some keys of a longer sequence.
struct AttentionBlock {
  at::Tensor query;       ///< [batch, heads, queries, head_size], elements of the last dim adjacent
  at::Tensor key, value;  ///< [batch, heads, keys, head_size], likewise
  BlockMask mask;
};

/// Attention of rows of queries, to some keys or to all of them.
struct AttentionRows {
  at::Tensor output;   ///< [batch, heads, queries, head_size]; 0 in rows without keys
  at::Tensor log_sum;  ///< [batch, heads, queries], in block_type(): log of the sum of exp(scores); -inf
                       ///< in rows without keys
};

/// What sums are kept in: float64 for float64, else float32.
at::ScalarType block_type(const at::Tensor& tensor);

/// Softmax(query key^T / sqrt(head_size) + bias) value, over the keys of this block alone. The output is of
/// the query's type or of block_type().
AttentionRows attend_block(const AttentionBlock& block);

/// Adds what other keys contribute to the same rows. `into` is in block_type() and changed in place.
void merge_rows(const AttentionRows& into, const AttentionRows& part);

/// What the keys of `block` contribute to the gradients of its query, key and value, where `rows` is the
/// attention to the keys of all blocks, but with finite log_sum, and `gradient` that of its output, of the
/// query's type.
std::array<at::Tensor, 3> attend_block_backward(const AttentionBlock& block, const AttentionRows& rows,
                                                const at::Tensor& gradient);

/// The same two by each AttentionKernel but the CPU's. efficient_block() takes biases of any type; the
/// backward of both fused ones reads `rows` best where output is [batch, queries, heads, head_size] in
/// memory.
AttentionRows flash_block(const AttentionBlock& block);
std::array<at::Tensor, 3> flash_block_backward(const AttentionBlock& block, const AttentionRows& rows,
                                               const at::Tensor& gradient);
AttentionRows efficient_block(const AttentionBlock& block);
std::array<at::Tensor, 3> efficient_block_backward(const AttentionBlock& block, const AttentionRows& rows,
                                                   const at::Tensor& gradient);
AttentionRows compose_block(const AttentionBlock& block);
std::array<at::Tensor, 3> compose_block_backward(const AttentionBlock& block, const AttentionRows& rows,
                                                 const at::Tensor& gradient);

}  // namespace tessera
