#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <utility>
#include <vector>

#include "trainer/kernels/kernels.h"

/// The differentiable operations that models are made of; data are [rows, hidden] throughout.
namespace tessera::ops {

/// x weight^T + bias; bias [outputs] may be undefined.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

/// One product for several layers that read the same x: x [rows, in] -> [rows, sum of outputs], in order.
at::Tensor joined_linear(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                         const std::vector<at::Tensor>& biases);

at::Tensor dropout(const at::Tensor& x, const DropoutSite& site);

/// {sum, normed} of kernels.h; normed is undefined without weight.
std::pair<at::Tensor, at::Tensor> residual_norm(const ResidualNormInput& input);

at::Tensor activation(const at::Tensor& x, const at::Tensor& bias, Activation kind);

struct TokenLoss {
  at::Tensor sum;      ///< [] float32: sum of the cross-entropies, in nats
  at::Tensor correct;  ///< [] float32, detached: rows whose best token is the label
};

/// Cross-entropy of softmax(x weight^T + bias) against labels: x [n, hidden], weight [classes, hidden],
/// labels [n] (negative: nothing to predict). At most `chunk_bytes` of logits exist at a time, and never
/// twice: their gradient overwrites them.
TokenLoss linear_cross_entropy(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                               const at::Tensor& labels, int64_t chunk_bytes = int64_t{256} << 20);

/// Runs body(x) without keeping what its backward needs, and runs it again in backward. `parameters` are
/// those that body uses. The body must be a pure function of x and parameters.
at::Tensor recomputed(const std::function<at::Tensor(const at::Tensor&)>& body, const at::Tensor& x,
                      const std::vector<at::Tensor>& parameters);

}  // namespace tessera::ops
