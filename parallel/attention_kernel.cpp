#include "parallel/attention_kernel.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <limits>

#include "parallel/attention_block.h"
#include "parallel/record.h"

namespace tessera {
namespace {
// 16 bytes at least, of every type; what ATen aligns gradients of biases to.
constexpr int64_t bias_alignment = 16;

int64_t bias_row(int64_t keys) { return (keys + bias_alignment - 1) / bias_alignment * bias_alignment; }

bool is_aligned(const at::Tensor& bias) {
  if (bias.stride(-1) != 1) return false;
  const auto strides = bias.strides().slice(0, static_cast<size_t>(bias.dim()) - 1);
  return std::all_of(strides.begin(), strides.end(),
                     [](int64_t stride) { return stride % bias_alignment == 0; });
}

at::Tensor dense_bias(const DenseAttention& all) {
  const at::Tensor& query = all.query;
  const at::Tensor bias = all.mask.scalar_type() == at::kBool
                              ? masking_bias(all.mask, query, AttentionKernel::efficient)
                              : all.mask;
  return aligned_bias(bias, query.scalar_type(),
                      {query.size(0), query.size(1), query.size(2), all.key.size(2)});
}

}  // namespace

AttentionKernel choose_kernel(const AttentionTraits& traits) {
  if (traits.device == at::kCPU) return AttentionKernel::cpu;
  if (traits.device != at::kCUDA) return AttentionKernel::composed;
  const bool two_bytes = traits.type == at::kBFloat16 || traits.type == at::kHalf;
  const int64_t alignment = two_bytes ? 8 : 4;  // rows of 16 bytes
  if (!two_bytes && traits.type != at::kFloat) return AttentionKernel::composed;
  if (traits.head_size % alignment != 0) return AttentionKernel::composed;
  return two_bytes && !traits.biased && traits.head_size <= 256 ? AttentionKernel::flash
                                                                : AttentionKernel::efficient;
}

AttentionKernel choose_kernel(const at::Tensor& query, bool biased) {
  return choose_kernel({query.device().type(), query.scalar_type(), query.size(-1), biased});
}

at::Tensor masking_bias(const at::Tensor& allowed, const at::Tensor& query, AttentionKernel kernel) {
  const bool aligned = kernel == AttentionKernel::efficient;
  const at::ScalarType type = aligned ? query.scalar_type() : block_type(query);
  std::vector<int64_t> sizes = allowed.sizes().vec();
  if (aligned) sizes.back() = bias_row(sizes.back());
  return at::zeros(sizes, allowed.options().dtype(type))
      .narrow(-1, 0, allowed.size(-1))
      .masked_fill_(allowed.logical_not(), -std::numeric_limits<double>::infinity());
}

at::Tensor aligned_bias(const at::Tensor& bias, at::ScalarType type, at::IntArrayRef sizes) {
  at::Tensor rows = bias.to(type);
  if (!is_aligned(rows)) {
    const int64_t keys = rows.size(-1);
    rows = at::constant_pad_nd(rows, {0, bias_row(keys) - keys}).contiguous().narrow(-1, 0, keys);
  }
  return rows.expand(sizes);
}

at::Tensor dense_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                           const at::Tensor& mask, bool causal) {
  return dense_attention(choose_kernel(query, mask.defined()), {query, key, value, mask, causal});
}

at::Tensor dense_attention(AttentionKernel kernel, const DenseAttention& all) {
  if (kernel == AttentionKernel::flash) {
    return std::get<0>(at::_scaled_dot_product_flash_attention(all.query, all.key, all.value, 0.0, all.causal,
                                                               /*return_debug_mask=*/false));
  }
  const auto mask = all.mask.defined() ? std::optional(all.mask) : std::nullopt;
  if (kernel == AttentionKernel::efficient) {
    return std::get<0>(at::_scaled_dot_product_efficient_attention(
        all.query, all.key, all.value, mask ? std::optional(dense_bias(all)) : std::nullopt,
        /*compute_log_sumexp=*/must_record({all.query, all.key, all.value}), 0.0, all.causal));
  }
  return at::scaled_dot_product_attention(all.query, all.key, all.value, mask, 0.0, all.causal);
}

}  // namespace tessera
