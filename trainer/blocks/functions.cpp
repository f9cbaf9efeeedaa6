#include "trainer/blocks/functions.h"

#include <torch/torch.h>

#include "parallel/record.h"

namespace tessera::ops {
namespace {

using Gradients = BackwardNode::Gradients;

at::Tensor weight_gradient(const at::Tensor& gradient, const at::Tensor& x) {
  return multiply_transposed(gradient.t(), x.t());
}

}  // namespace

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  at::Tensor y;
  {
    at::NoGradGuard no_grad;
    y = multiply_transposed(x, weight, bias);
  }
  if (!must_record({x, weight, bias})) return y;
  // A frozen weight needs no x.
  const at::Tensor kept = weight.requires_grad() ? x : at::Tensor();
  record({x, weight, bias}, {&y}, [x = kept, weight](const Gradients& gradients, BackwardNode& node) {
    const at::Tensor gradient = gradients[0].contiguous();
    Gradients result(3);
    if (node.wanted(0)) result[0] = multiply_transposed(gradient, weight.t());
    if (node.wanted(1)) result[1] = weight_gradient(gradient, x);
    if (node.wanted(2)) result[2] = kernels_for(gradient).column_sum(gradient);
    return result;
  });
  return y;
}

at::Tensor low_rank(const at::Tensor& x, const at::Tensor& weight, double scale, const DropoutSite& site) {
  at::Tensor y;
  {
    at::NoGradGuard no_grad;
    y = multiply_transposed(kernels_for(x).dropout(x, site), weight).mul_(scale);
  }
  if (!must_record({x, weight})) return y;
  record({x, weight}, {&y}, [x, weight, scale, site](const Gradients& gradients, BackwardNode& node) {
    const at::Tensor gradient = gradients[0] * scale;
    const Kernels& kernels = kernels_for(x);
    Gradients result(2);
    if (node.wanted(0)) result[0] = kernels.dropout(multiply_transposed(gradient, weight.t()), site);
    if (node.wanted(1)) result[1] = weight_gradient(gradient, kernels.dropout(x, site));
    return result;
  });
  return y;
}

at::Tensor dropout(const at::Tensor& x, const DropoutSite& site) {
  if (!site.active()) return x;
  at::Tensor y;
  {
    at::NoGradGuard no_grad;
    y = kernels_for(x).dropout(x, site);
  }
  if (!must_record({x})) return y;
  record({x}, {&y}, [site](const Gradients& gradients, BackwardNode&) -> Gradients {
    return {kernels_for(gradients[0]).dropout(gradients[0].contiguous(), site)};
  });
  return y;
}

std::pair<at::Tensor, at::Tensor> residual_norm(const ResidualNormInput& input) {
  ResidualNormOutput output;
  {
    at::NoGradGuard no_grad;
    output = kernels_for(input.x).residual_norm(input);
  }
  const std::vector<at::Tensor> inputs{input.x, input.bias, input.residual, input.weight, input.shift};
  at::Tensor sum = output.sum, normed = output.normed;
  if (!must_record(inputs)) return {sum, normed};
  // Without addends the sum is the input itself, already in the graph.
  const bool sum_is_input = sum.is_same(input.x);
  if (!sum_is_input) sum = sum.detach();
  output.normed = at::Tensor();
  output.sum = output.sum.detach();
  std::vector<at::Tensor*> recorded;
  if (!sum_is_input) recorded.push_back(&sum);
  if (normed.defined()) recorded.push_back(&normed);
  record(inputs, recorded, [input, output, sum_is_input](const Gradients& gradients, BackwardNode&) {
    at::Tensor sum_gradient, normed_gradient;
    if (!sum_is_input) sum_gradient = gradients[0];
    if (output.mean.defined()) normed_gradient = gradients.back();
    if (sum_gradient.defined()) sum_gradient = sum_gradient.contiguous();
    if (normed_gradient.defined()) normed_gradient = normed_gradient.contiguous();
    if (!sum_gradient.defined() && !normed_gradient.defined()) return Gradients(5);
    const auto all =
        kernels_for(input.x).residual_norm_backward(input, output, sum_gradient, normed_gradient);
    return Gradients{all.x, all.bias, input.residual.defined() ? all.residual : at::Tensor(), all.weight,
                     all.shift};
  });
  return {sum, normed};
}

at::Tensor activation(const at::Tensor& x, const at::Tensor& bias, Activation kind) {
  at::Tensor y;
  {
    at::NoGradGuard no_grad;
    y = kernels_for(x).activation(x, bias, kind);
  }
  if (!must_record({x, bias})) return y;
  record({x, bias}, {&y}, [x, bias, kind](const Gradients& gradients, BackwardNode&) -> Gradients {
    const auto all = kernels_for(x).activation_backward(gradients[0].contiguous(), x, bias, kind);
    return {all.x, all.bias};
  });
  return y;
}

at::Tensor recomputed(const std::function<at::Tensor(const at::Tensor&)>& body, const at::Tensor& x,
                      const std::vector<at::Tensor>& parameters) {
  std::vector<at::Tensor> inputs{x};
  for (const at::Tensor& parameter : parameters) {
    if (parameter.requires_grad()) inputs.push_back(parameter);
  }
  if (!must_record(inputs)) return body(x);
  at::Tensor y;
  {
    at::NoGradGuard no_grad;
    y = body(x);
  }
  record(inputs, {&y}, [body, inputs](const Gradients& gradients, BackwardNode&) {
    at::AutoGradMode grad(true);
    std::vector<at::Tensor> leaves = inputs;
    leaves[0] = inputs[0].detach().requires_grad_();
    const at::Tensor again = body(leaves[0]);
    return torch::autograd::grad({again}, leaves, {gradients[0]}, /*retain_graph=*/false,
                                 /*create_graph=*/false,
                                 /*allow_unused=*/true);
  });
  return y;
}

}  // namespace tessera::ops
