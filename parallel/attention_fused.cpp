// Blocks of attention by the fused kernels of LibTorch for CUDA. Both find p = exp(score - log_sum) again in
// backward, so that a block of some keys takes the output and log_sum of all keys.
#include <ATen/Functions.h>

#include <limits>

#include "parallel/attention_block.h"
#include "parallel/attention_kernel.h"

namespace tessera {
namespace {
constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr int64_t log_sum_row = 32;  // the memory-efficient kernel's rows of log_sum are multiples of this

/// The state of the dropout of probabilities, of which there is none: no kernel reads it then.
at::Tensor no_dropout(const at::Tensor& query) { return at::empty({2}, query.options().dtype(at::kUInt64)); }

/// [batch, heads, queries, head_size], as [batch, queries, heads, head_size] in memory.
at::Tensor rows_first(const at::Tensor& x) { return x.transpose(1, 2).contiguous().transpose(1, 2); }

at::Tensor expanded_bias(const AttentionBlock& block) {
  const at::Tensor& query = block.query;
  const std::vector<int64_t> sizes{query.size(0), query.size(1), query.size(2), block.key.size(2)};
  return aligned_bias(block.mask.bias, query.scalar_type(), sizes);
}

}  // namespace

AttentionRows flash_block(const AttentionBlock& block) {
  const auto result = at::_scaled_dot_product_flash_attention(block.query, block.key, block.value, 0.0,
                                                              block.mask.causal, /*return_debug_mask=*/false);
  return {std::get<0>(result), std::get<1>(result)};
}

std::array<at::Tensor, 3> flash_block_backward(const AttentionBlock& block, const AttentionRows& rows,
                                               const at::Tensor& gradient) {
  const at::Tensor unused = no_dropout(block.query);
  std::array<at::Tensor, 3> result;
  // It reads log_sum as if it were contiguous.
  std::tie(result[0], result[1], result[2]) = at::_scaled_dot_product_flash_attention_backward(
      gradient, block.query, block.key, block.value, rows.output, rows.log_sum.contiguous(), {}, {},
      block.query.size(2), block.key.size(2), 0.0, block.mask.causal, unused, unused);
  return result;
}

AttentionRows efficient_block(const AttentionBlock& block) {
  const bool biased = block.mask.bias.defined();
  const auto bias = biased ? std::optional(expanded_bias(block)) : std::nullopt;
  const auto result = at::_scaled_dot_product_efficient_attention(
      block.query, block.key, block.value, bias, /*compute_log_sumexp=*/true, 0.0, block.mask.causal);
  const at::Tensor log_sum = std::get<1>(result).narrow(2, 0, block.query.size(2));
  // The kernel calls the logarithm of nothing 0.
  if (biased) log_sum.masked_fill_(block.mask.empty_rows, -infinity);
  return {std::get<0>(result), log_sum};
}

std::array<at::Tensor, 3> efficient_block_backward(const AttentionBlock& block, const AttentionRows& rows,
                                                   const at::Tensor& gradient) {
  const int64_t beyond = (log_sum_row - block.query.size(2) % log_sum_row) % log_sum_row;
  const at::Tensor bias = block.mask.bias.defined() ? expanded_bias(block) : at::Tensor();
  const at::Tensor unused = no_dropout(block.query);
  std::array<at::Tensor, 3> result;
  std::tie(result[0], result[1], result[2], std::ignore) =
      at::_scaled_dot_product_efficient_attention_backward(
          gradient, block.query, block.key, block.value, bias, rows_first(rows.output),
          at::constant_pad_nd(rows.log_sum, {0, beyond}, infinity).contiguous(), unused, unused, 0.0,
          {true, true, true, false}, block.mask.causal);
  return result;
}

}  // namespace tessera
