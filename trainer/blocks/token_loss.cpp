#include <torch/torch.h>

#include <algorithm>

#include "parallel/record.h"
#include "trainer/blocks/functions.h"

namespace tessera::ops {
namespace {

using Gradients = BackwardNode::Gradients;

struct Saved {
  at::Tensor x, weight,
      logits_gradient;               // a single chunk: products wait for backward, where the scale is known
  at::Tensor d_x, d_weight, d_bias;  // several chunks: made chunk by chunk, scaled in backward
  int64_t row_multiple;
};

// All rows at once, where their logits are small.
TokenLoss whole(Saved& saved, const at::Tensor& bias, const at::Tensor& labels, bool keep) {
  at::Tensor logits = multiply_transposed_padded(saved.x, saved.weight, {}, saved.row_multiple);
  const CrossEntropy result = kernels_for(logits).cross_entropy(logits, bias, labels);
  if (keep) saved.logits_gradient = logits;
  return {result.sum, result.correct};
}

// Rows chunk by chunk; the weight's gradient is summed in float32 over chunks.
TokenLoss chunked(Saved& saved, const at::Tensor& bias, const at::Tensor& labels, int64_t rows, bool keep) {
  TokenLoss total{
      at::zeros({}, saved.x.options().dtype(at::promote_types(saved.x.scalar_type(), at::kFloat))), {}};
  total.correct = at::zeros_like(total.sum);
  if (keep) saved.d_x = at::empty_like(saved.x);
  for (int64_t begin = 0; begin < saved.x.size(0); begin += rows) {
    const int64_t end = std::min(begin + rows, saved.x.size(0));
    const at::Tensor x = saved.x.slice(0, begin, end);
    at::Tensor logits = multiply_transposed_padded(x, saved.weight, {}, saved.row_multiple);
    const CrossEntropy part = kernels_for(logits).cross_entropy(logits, bias, labels.slice(0, begin, end));
    total.sum = total.sum + part.sum;
    total.correct += part.correct;
    if (!keep) continue;
    saved.d_x.slice(0, begin, end).copy_(multiply_transposed(logits, saved.weight.t()));
    const at::Tensor d_weight = multiply_transposed(logits.t(), x.t());
    saved.d_weight =
        saved.d_weight.defined() ? saved.d_weight.add_(d_weight) : d_weight.to(total.sum.scalar_type());
    if (!bias.defined()) continue;
    const at::Tensor d_bias = kernels_for(logits).column_sum(logits).to(total.sum.scalar_type());
    saved.d_bias = saved.d_bias.defined() ? saved.d_bias.add_(d_bias) : d_bias;
  }
  return total;
}

Gradients backward(const Saved& saved, const at::Tensor& scale, bool has_bias, BackwardNode& node) {
  Gradients result(3);
  const at::ScalarType type = saved.x.scalar_type();
  if (saved.logits_gradient.defined()) {
    const at::Tensor& d_logits = saved.logits_gradient;
    if (node.wanted(0)) result[0] = multiply_transposed(d_logits, saved.weight.t()).mul_(scale);
    if (node.wanted(1)) result[1] = multiply_transposed(d_logits.t(), (saved.x * scale).to(type).t());
    if (has_bias && node.wanted(2)) result[2] = kernels_for(d_logits).column_sum(d_logits).mul_(scale);
    return result;
  }
  if (node.wanted(0)) result[0] = (saved.d_x * scale).to(type);
  if (node.wanted(1)) result[1] = (saved.d_weight * scale).to(type);
  if (has_bias && node.wanted(2)) result[2] = (saved.d_bias * scale).to(type);
  return result;
}

}  // namespace

TokenLoss linear_cross_entropy(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                               const at::Tensor& labels, const LogitsOptions& options) {
  const bool keep = must_record({x, weight, bias});
  Saved saved{x.detach(), weight.detach(), {}, {}, {}, {}, options.row_multiple};
  TokenLoss loss;
  {
    at::NoGradGuard no_grad;
    const int64_t row_bytes = std::max<int64_t>(1, weight.size(0) * static_cast<int64_t>(x.element_size()));
    const int64_t rows = std::max<int64_t>(1, options.chunk_bytes / row_bytes);
    if (x.size(0) == 0) {
      loss.sum = at::zeros({}, x.options().dtype(at::kFloat));
      loss.correct = at::zeros_like(loss.sum);
    } else if (x.size(0) <= rows) {
      loss = whole(saved, bias, labels, keep);
    } else {
      loss = chunked(saved, bias, labels, rows, keep);
    }
  }
  if (!keep) return loss;
  if (x.size(0) == 0) {
    // Nothing to predict in this micro-batch: keep the graph whole, with zero gradients.
    loss.sum = loss.sum + x.sum().to(at::kFloat);
    return loss;
  }
  record({x, weight, bias}, {&loss.sum},
         [saved, has_bias = bias.defined()](const Gradients& gradients, BackwardNode& node) {
           return backward(saved, gradients[0], has_bias, node);
         });
  return loss;
}

}  // namespace tessera::ops
