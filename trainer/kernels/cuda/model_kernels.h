#pragma once
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
void adamw(const std::vector<AdamwTensors>& tensors, const AdamwStep& step);
at::Tensor sum_of_squares(const std::vector<at::Tensor>& tensors);

}  // namespace tessera::cuda
