#include <torch/torch.h>

#include "parallel/record.h"
#include "trainer/blocks/functions.h"

namespace tessera::ops {
namespace {

// Joining the weights costs little beside the product: it reads each of them once, the product once per few
// rows. Backward joins them again: kept, they would need as much memory as they do.
at::Tensor joined(const std::vector<at::Tensor>& parts) {
  if (parts.empty()) return {};
  return parts.size() == 1 ? parts.front() : at::cat(parts);
}

struct JoinedLinear {
  at::Tensor x;
  std::vector<at::Tensor> weights;
  std::vector<int64_t> sizes;
  size_t num_biases;
  SplitRows rows;

  bool any_wanted(const BackwardNode& node, size_t first, size_t count) const {
    for (size_t i = first; i < first + count; ++i) {
      if (node.wanted(i)) return true;
    }
    return false;
  }
  BackwardNode::Gradients backward(const at::Tensor& gradient, const BackwardNode& node) const;
};

BackwardNode::Gradients JoinedLinear::backward(const at::Tensor& gradient, const BackwardNode& node) const {
  const bool x_wanted = node.wanted(0), weights_wanted = any_wanted(node, 1, sizes.size());
  const TensorSplit* split = rows.split;
  TensorSplit::Pending all_x, own_gradient;
  BackwardNode::Gradients result(1);
  if (split && weights_wanted) all_x = split->start_gather(x, rows.batch);  // travels beside the next product
  if (x_wanted) {
    result[0] = multiply_transposed(gradient, joined(weights).t());
    if (split) own_gradient = split->start_sum(result[0], rows.batch);  // and this beside the one after
  }
  std::vector<at::Tensor> parts(sizes.size());
  if (weights_wanted) {
    const at::Tensor input = split ? split->finish_gather(all_x) : x;
    parts = multiply_transposed(gradient.t(), input.t()).split_with_sizes(sizes);
  }
  result.insert(result.end(), parts.begin(), parts.end());
  parts.assign(num_biases, at::Tensor());
  if (any_wanted(node, 1 + sizes.size(), num_biases)) {
    parts = kernels_for(gradient).column_sum(gradient).split_with_sizes(sizes);
  }
  result.insert(result.end(), parts.begin(), parts.end());
  if (split && x_wanted) result[0] = split->finish_sum(own_gradient);
  return result;
}

}  // namespace

at::Tensor joined_linear(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                         const std::vector<at::Tensor>& biases, const SplitRows& rows) {
  std::vector<at::Tensor> inputs{x};
  inputs.insert(inputs.end(), weights.begin(), weights.end());
  inputs.insert(inputs.end(), biases.begin(), biases.end());
  JoinedLinear kept{x, weights, {}, biases.size(), rows};
  for (const at::Tensor& each : weights) kept.sizes.push_back(each.size(0));
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    const at::Tensor input =
        rows.split ? rows.split->finish_gather(rows.split->start_gather(x, rows.batch)) : x;
    y = multiply_transposed(input, joined(weights), joined(biases));
  }
  if (!must_record(inputs)) return y;
  record(inputs, {&y}, [kept](const BackwardNode::Gradients& gradients, BackwardNode& node) {
    return kept.backward(gradients[0].contiguous(), node);
  });
  return y;
}

}  // namespace tessera::ops
