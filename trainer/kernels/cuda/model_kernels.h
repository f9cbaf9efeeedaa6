#pragma once
#include <algorithm>

#include "trainer/kernels/kernels.h"

/// The table of kernels.h for NVIDIA GPUs: float32, bfloat16 and float16, on the current stream.
namespace tessera::cuda {

/// The table.
const Kernels& kernels();

at::Tensor dropout(const at::Tensor& x, const DropoutSite& site);
ResidualNormOutput residual_norm(const ResidualNormInput& input);
ResidualNormGradient residual_norm_backward(const ResidualNormInput& input, const ResidualNormOutput& output,
                                            const at::Tensor& sum_gradient,
                                            const at::Tensor& normed_gradient);
at::Tensor activation(const at::Tensor& x, const at::Tensor& bias, Activation kind);
ActivationGradient activation_backward(const at::Tensor& gradient, const at::Tensor& x,
                                       const at::Tensor& bias, Activation kind);
CrossEntropy cross_entropy(at::Tensor& logits, const at::Tensor& bias, const at::Tensor& labels);

/// Blocks of a kernel that sums over rows: each makes partial sums of its own, added up afterwards, so that
/// the result does not depend on the order in which blocks run.
inline int64_t partial_blocks(int64_t rows) { return std::max<int64_t>(1, std::min<int64_t>(rows, 512)); }

}  // namespace tessera::cuda
