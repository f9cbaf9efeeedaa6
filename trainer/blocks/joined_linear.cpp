#include <torch/torch.h>

#include <algorithm>

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
  at::Tensor x;  // undefined where all weights are frozen
  std::vector<at::Tensor> weights;
  std::vector<int64_t> sizes;
  size_t num_biases;
  SplitRows rows;
  std::vector<LowRank> addends;

  at::Tensor forward(const at::Tensor& input, const std::vector<at::Tensor>& biases) const;
  BackwardNode::Gradients backward(const at::Tensor& gradient, const BackwardNode& node) const;

 private:
  bool any_wanted(const BackwardNode& node, size_t first, size_t count) const {
    for (size_t i = first; i < first + count; ++i) {
      if (node.wanted(i)) return true;
    }
    return false;
  }
  at::Tensor whole(const at::Tensor& own) const {
    return rows.split ? rows.split->finish_gather(rows.split->start_gather(own, rows.batch)) : own;
  }
  void add_backward(const at::Tensor& gradient, const BackwardNode& node,
                    BackwardNode::Gradients& result) const;
};

at::Tensor JoinedLinear::forward(const at::Tensor& input, const std::vector<at::Tensor>& biases) const {
  at::Tensor y = multiply_transposed(whole(input), joined(weights), joined(biases));
  int64_t first = 0;
  for (size_t i = 0; i < addends.size(); ++i) {
    const LowRank& addend = addends[i];
    if (addend.hidden.defined()) {
      y.narrow(1, first, sizes[i]).add_(multiply_transposed(whole(addend.hidden), addend.weight));
    }
    first += sizes[i];
  }
  return y;
}

void JoinedLinear::add_backward(const at::Tensor& gradient, const BackwardNode& node,
                                BackwardNode::Gradients& result) const {
  int64_t first = 0;
  for (size_t i = 0; i < addends.size(); ++i) {
    const LowRank& addend = addends[i];
    const size_t at = result.size();
    result.resize(at + 2);
    const at::Tensor own = sizes.size() == 1 ? gradient : gradient.narrow(1, first, sizes[i]);
    first += sizes[i];
    if (!addend.hidden.defined()) continue;
    const at::Tensor part = own.contiguous();
    if (node.wanted(at)) {
      result[at] = multiply_transposed(part, addend.weight.t());
      if (rows.split) result[at] = rows.split->finish_sum(rows.split->start_sum(result[at], rows.batch));
    }
    if (node.wanted(at + 1)) result[at + 1] = multiply_transposed(part.t(), whole(addend.hidden).t());
  }
}

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
  add_backward(gradient, node, result);
  return result;
}

}  // namespace

at::Tensor joined_linear(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                         const std::vector<at::Tensor>& biases, const SplitRows& rows,
                         const std::vector<LowRank>& addends) {
  std::vector<at::Tensor> inputs{x};
  inputs.insert(inputs.end(), weights.begin(), weights.end());
  inputs.insert(inputs.end(), biases.begin(), biases.end());
  for (const LowRank& addend : addends) inputs.insert(inputs.end(), {addend.hidden, addend.weight});
  const bool frozen = std::none_of(weights.begin(), weights.end(),
                                   [](const at::Tensor& weight) { return weight.requires_grad(); });
  JoinedLinear kept{frozen ? at::Tensor() : x, weights, {}, biases.size(), rows, addends};
  for (const at::Tensor& each : weights) kept.sizes.push_back(each.size(0));
  at::Tensor y;
  {
    const at::NoGradGuard no_grad;
    y = kept.forward(x, biases);
  }
  if (!must_record(inputs)) return y;
  record(inputs, {&y}, [kept](const BackwardNode::Gradients& gradients, BackwardNode& node) {
    return kept.backward(gradients[0].contiguous(), node);
  });
  return y;
}

}  // namespace tessera::ops
