#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <utility>
#include <vector>

#include "parallel/tensor_split.h"
#include "trainer/kernels/kernels.h"

/// The differentiable operations that models are made of; data are [rows, hidden] throughout.
namespace tessera::ops {

/// x weight^T + bias; bias [outputs] may be undefined.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

/// The ranks that divide a product, and the samples of its rows; null: nobody.
struct SplitRows {
  const TensorSplit* split = nullptr;
  int64_t batch = 1;
};

/// What a low-rank product adds to a layer: hidden [rows, rank] (own rows, where ranks divide them) times the
/// transpose of weight [outputs, rank]; undefined: nothing.
struct LowRank {
  at::Tensor hidden, weight;
};

/// scale * dropout(x) weight^T: x [rows, in], weight [rank, in] -> [rows, rank]. Keeps x, not what dropout
/// made of it.
at::Tensor low_rank(const at::Tensor& x, const at::Tensor& weight, double scale, const DropoutSite& site);

/// One product for several layers that read the same x: x [rows, in] -> [rows, sum of outputs], in order.
/// `addends`: one per layer, or none at all.
/// Where ranks divide the outputs, x are own rows, gathered first (and again for backward: only own rows are
/// kept), and messages travel while products run.
at::Tensor joined_linear(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                         const std::vector<at::Tensor>& biases, const SplitRows& rows = {},
                         const std::vector<LowRank>& addends = {});

at::Tensor dropout(const at::Tensor& x, const DropoutSite& site);

/// {sum, normed} of kernels.h; normed is undefined without weight.
std::pair<at::Tensor, at::Tensor> residual_norm(const ResidualNormInput& input);

at::Tensor activation(const at::Tensor& x, const at::Tensor& bias, Activation kind);

struct TokenLoss {
  at::Tensor sum;      ///< [] float32: sum of the cross-entropies, in nats
  at::Tensor correct;  ///< [] float32, detached: rows whose best token is the label
};

/// How logits lie in memory.
struct LogitsOptions {
  int64_t chunk_bytes = int64_t{256} << 20;  ///< that exist at a time
  int64_t row_multiple = 0;                  ///< as multiply_transposed_padded()'s
};

/// Cross-entropy of softmax(x weight^T + bias) against labels: x [n, hidden], weight [classes, hidden],
/// labels [n] (negative: nothing to predict). Logits never exist twice: their gradient overwrites them.
TokenLoss linear_cross_entropy(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                               const at::Tensor& labels, const LogitsOptions& options = {});

/// This rank's classes of a divided vocabulary.
struct VocabularyPart {
  const TensorSplit* split = nullptr;
  int64_t first = 0;
  int64_t row_multiple = 0;  ///< as multiply_transposed_padded()'s
};
/// linear_cross_entropy() where ranks divide the classes: weight [own classes, hidden], bias [own classes]; x
/// and labels alike on all ranks, and so the loss. The gradient of x is this rank's share.
TokenLoss split_cross_entropy(const VocabularyPart& part, const at::Tensor& x, const at::Tensor& weight,
                              const at::Tensor& bias, const at::Tensor& labels);

/// Runs body(x) without keeping what its backward needs, and runs it again in backward. `parameters` are
/// those that body uses. The body must be a pure function of x and parameters.
at::Tensor recomputed(const std::function<at::Tensor(const at::Tensor&)>& body, const at::Tensor& x,
                      const std::vector<at::Tensor>& parameters);

}  // namespace tessera::ops
