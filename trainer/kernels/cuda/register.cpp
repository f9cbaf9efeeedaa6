#include <ATen/core/Tensor.h>

#include "trainer/kernels/cuda/model_kernels.h"

namespace tessera::cuda {
namespace {

at::Tensor column_sum(const at::Tensor& x) { return x.sum(0); }

// Runs when the plug-in is loaded.
const bool registered = [] {
  register_cuda_kernels(kernels());
  return true;
}();

}  // namespace

const Kernels& kernels() {
  static const Kernels table{
      dropout,    residual_norm, residual_norm_backward, activation, activation_backward, cross_entropy,
      column_sum, adamw,         sum_of_squares};
  return table;
}

}  // namespace tessera::cuda
