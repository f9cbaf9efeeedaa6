#pragma once
#include <ATen/core/Tensor.h>

namespace tessera {

/// What computes attention and its gradients.
enum class AttentionKernel {
  cpu,        ///< LibTorch's for CPUs
  flash,      ///< FlashAttention-2 (Dao, 2023): GPUs of compute capability 8.0 and newer, no bias
  efficient,  ///< CUTLASS's memory-efficient attention: GPUs, with or without a bias
  composed,   ///< elementary operations, which keep all scores
};

struct AttentionTraits {
  at::DeviceType device = at::kCPU;
  at::ScalarType type = at::kFloat;
  int64_t head_size = 0;
  bool biased = false;  ///< a bias, or a mask that is not the causal triangle
};

AttentionKernel choose_kernel(const AttentionTraits& traits);
/// For a query [..., head_size].
AttentionKernel choose_kernel(const at::Tensor& query, bool biased);

/// 0 where `allowed` [..., keys] is true, -inf elsewhere, as `kernel` reads it fastest with such a query:
/// block_type(query) or, for `efficient`, the query's own type, in rows that begin at multiples of 16
/// elements.
at::Tensor masking_bias(const at::Tensor& allowed, const at::Tensor& query, AttentionKernel kernel);

/// A bias, of any type and broadcastable to `sizes` [batch, heads, queries, keys], as `efficient` takes it:
/// of that size and of `type`, its rows aligned. Copies only what is not so already, and never expands in
/// memory.
at::Tensor aligned_bias(const at::Tensor& bias, at::ScalarType type, at::IntArrayRef sizes);

/// Attention of all queries to all keys, differentiable in query, key and value [batch, heads, positions,
/// head_size]. mask: undefined; bool, true where a key may be attended to; or an addend to the scores, of the
/// query's type; broadcastable to [batch, heads, queries, keys]. causal: of as many keys as queries, without
/// a mask.
at::Tensor dense_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                           const at::Tensor& mask, bool causal);

/// Arguments of dense_attention().
struct DenseAttention {
  at::Tensor query, key, value, mask;
  bool causal = false;
};
/// The same by a kernel that takes it. It is called by name: what LibTorch would choose by itself may be
/// cuDNN's attention, whose gradients are NaN at some lengths (pytorch issue 196678) and whose sums have no
/// fixed order.
at::Tensor dense_attention(AttentionKernel kernel, const DenseAttention& all);

}  // namespace tessera
