#include "parallel/attention_block.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>

#include <cmath>
#include <limits>

#include "parallel/attention_kernel.h"

namespace tessera {
namespace {
constexpr double minus_infinity = -std::numeric_limits<double>::infinity();

double score_scale(const at::Tensor& query) { return 1 / std::sqrt(static_cast<double>(query.size(3))); }

// [batch, heads, queries, keys] with the mask.
at::Tensor composed_scores(const AttentionBlock& block, const at::Tensor& query, const at::Tensor& key) {
  at::Tensor scores = at::matmul(query * score_scale(query), key.transpose(2, 3));
  if (block.mask.bias.defined()) return scores.add_(block.mask.bias);
  if (!block.mask.causal) return scores;
  return scores.add_(at::full({query.size(2), key.size(2)}, minus_infinity, scores.options()).triu_(1));
}

at::Tensor finite(const at::Tensor& log_sum) { return log_sum.masked_fill(log_sum == minus_infinity, 0); }

std::optional<at::Tensor> optional_bias(const BlockMask& mask) {
  return mask.bias.defined() ? std::optional(mask.bias) : std::nullopt;
}

AttentionRows cpu_block(const AttentionBlock& block) {
  AttentionRows rows;
  std::tie(rows.output, rows.log_sum) = at::_scaled_dot_product_flash_attention_for_cpu(
      block.query, block.key, block.value, 0.0, block.mask.causal, optional_bias(block.mask));
  // The kernel calls the logarithm of nothing 0.
  if (block.mask.bias.defined()) rows.log_sum.masked_fill_(block.mask.empty_rows, minus_infinity);
  return rows;
}

std::array<at::Tensor, 3> cpu_block_backward(const AttentionBlock& block, const AttentionRows& rows,
                                             const at::Tensor& gradient) {
  std::array<at::Tensor, 3> result;
  std::tie(result[0], result[1], result[2]) = at::_scaled_dot_product_flash_attention_for_cpu_backward(
      gradient, block.query, block.key, block.value, rows.output, rows.log_sum, 0.0, block.mask.causal,
      optional_bias(block.mask));
  return result;
}

AttentionKernel kernel_of(const AttentionBlock& block) {
  return choose_kernel(block.query, block.mask.bias.defined());
}

}  // namespace

at::ScalarType block_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

AttentionRows attend_block(const AttentionBlock& block) {
  switch (kernel_of(block)) {
    case AttentionKernel::cpu:
      return cpu_block(block);
    case AttentionKernel::flash:
      return flash_block(block);
    case AttentionKernel::efficient:
      return efficient_block(block);
    case AttentionKernel::composed:
      return compose_block(block);
  }
  throw std::logic_error("attend_block: unknown kernel");
}

std::array<at::Tensor, 3> attend_block_backward(const AttentionBlock& block, const AttentionRows& rows,
                                                const at::Tensor& gradient) {
  switch (kernel_of(block)) {
    case AttentionKernel::cpu:
      return cpu_block_backward(block, rows, gradient);
    case AttentionKernel::flash:
      return flash_block_backward(block, rows, gradient);
    case AttentionKernel::efficient:
      return efficient_block_backward(block, rows, gradient);
    case AttentionKernel::composed:
      return compose_block_backward(block, rows, gradient);
  }
  throw std::logic_error("attend_block_backward: unknown kernel");
}

AttentionRows compose_block(const AttentionBlock& block) {
  const at::ScalarType type = block_type(block.query);
  at::Tensor scores = composed_scores(block, block.query.to(type), block.key.to(type));
  const at::Tensor log_sum = scores.logsumexp(3);
  const at::Tensor probabilities = scores.sub_(finite(log_sum).unsqueeze(3)).exp_();
  return {at::matmul(probabilities, block.value.to(type)), log_sum};
}

std::array<at::Tensor, 3> compose_block_backward(const AttentionBlock& block, const AttentionRows& rows,
                                                 const at::Tensor& gradient) {
  const at::ScalarType type = block_type(block.query);
  const at::Tensor query = block.query.to(type), key = block.key.to(type), outer = gradient.to(type);
  const at::Tensor probabilities = composed_scores(block, query, key).sub_(rows.log_sum.unsqueeze(3)).exp_();
  // d softmax: p (dp - sum of p dp), and that sum is the product of output and gradient (Dao et al., 2022).
  const at::Tensor shift = (outer * rows.output).sum(3, /*keepdim=*/true);
  const at::Tensor scores = at::matmul(outer, block.value.to(type).transpose(2, 3))
                                .sub_(shift)
                                .mul_(probabilities)
                                .mul_(score_scale(query));
  return {at::matmul(scores, key), at::matmul(scores.transpose(2, 3), query),
          at::matmul(probabilities.transpose(2, 3), outer)};
}

void merge_rows(const AttentionRows& into, const AttentionRows& part) {
  const at::Tensor total = at::logaddexp(into.log_sum, part.log_sum);
  // exp(-inf - 0) = 0 where neither has a key, instead of exp(-inf + inf).
  const at::Tensor weight = (part.log_sum - finite(total)).exp_();
  into.output.lerp_(part.output.to(into.output.scalar_type()), weight.unsqueeze(3));
  into.log_sum.copy_(total);
}

}  // namespace tessera
