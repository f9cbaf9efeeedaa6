#include <ATen/core/Tensor.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "trainer/kernels/cuda/launch.cuh"
#include "trainer/kernels/cuda/model_kernels.h"

namespace tessera::cuda {
namespace {

constexpr int threads = 256;
constexpr float normal_peak = 0.39894228040143268f;
constexpr float root_two_over_pi = 0.79788456080286536f, cubic = 0.044715f;

__device__ float value_at(float x, Activation kind) {
  if (kind == Activation::relu) return fmaxf(x, 0.0f);
  if (kind == Activation::gelu_erf) return x * normcdff(x);
  return 0.5f * x * (1.0f + tanhf(root_two_over_pi * (x + cubic * x * x * x)));
}

__device__ float slope_at(float x, Activation kind) {
  if (kind == Activation::relu) return x > 0 ? 1.0f : 0.0f;
  if (kind == Activation::gelu_erf) return normcdff(x) + x * normal_peak * expf(-0.5f * x * x);
  const float t = tanhf(root_two_over_pi * (x + cubic * x * x * x));
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * root_two_over_pi * (1.0f + 3.0f * cubic * x * x);
}

template <class T>
__global__ void forward_kernel(const T* x, const T* bias, T* y, int64_t count, int64_t width, Activation kind) {
  for (int64_t at = blockIdx.x * int64_t{threads} + threadIdx.x; at < count; at += int64_t{gridDim.x} * threads) {
    const float added = bias ? static_cast<float>(bias[at % width]) : 0.0f;
    y[at] = static_cast<T>(value_at(static_cast<float>(x[at]) + added, kind));
  }
}

// Block (i, j) has columns [i * threads, (i + 1) * threads) of rows j, j + gridDim.y, …
template <class T>
__global__ void backward_kernel(const T* gradient, const T* x, const T* bias, T* out, float* sums, int64_t rows,
                                int64_t width, Activation kind) {
  const int64_t column = blockIdx.x * int64_t{threads} + threadIdx.x;
  if (column >= width) return;
  const float added = bias ? static_cast<float>(bias[column]) : 0.0f;
  float total = 0;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const int64_t at = row * width + column;
    const float value = static_cast<float>(gradient[at]) * slope_at(static_cast<float>(x[at]) + added, kind);
    out[at] = static_cast<T>(value);
    total += value;
  }
  if (sums) sums[blockIdx.y * width + column] = total;
}

}  // namespace

at::Tensor activation(const at::Tensor& x, const at::Tensor& bias, Activation kind) {
  at::Tensor y = at::empty_like(x);
  if (x.numel() == 0) return y;
  const DeviceGuard guard(x.device());
  const int64_t blocks = std::min<int64_t>((x.numel() + threads - 1) / threads, 65535);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "activation", [&] {
    launch(forward_kernel<scalar_t>, static_cast<unsigned>(blocks), threads, 
        x.data_ptr<scalar_t>(), bias.defined() ? bias.data_ptr<scalar_t>() : nullptr, y.data_ptr<scalar_t>(), x.numel(),
        x.size(1), kind);
  });
  return y;
}

ActivationGradient activation_backward(const at::Tensor& gradient, const at::Tensor& x, const at::Tensor& bias,
                                       Activation kind) {
  ActivationGradient result{at::empty_like(x), {}};
  const DeviceGuard guard(x.device());
  const int64_t rows = x.size(0), width = x.size(1), groups = std::min<int64_t>(partial_blocks(rows), 64);
  at::Tensor sums;
  if (bias.defined()) sums = at::zeros({groups, width}, x.options().dtype(at::kFloat));
  if (x.numel() > 0) {
    const dim3 grid(static_cast<unsigned>((width + threads - 1) / threads), static_cast<unsigned>(groups));
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "activation_backward", [&] {
      launch(backward_kernel<scalar_t>, grid, threads, 
          gradient.data_ptr<scalar_t>(), x.data_ptr<scalar_t>(), bias.defined() ? bias.data_ptr<scalar_t>() : nullptr,
          result.x.data_ptr<scalar_t>(), sums.defined() ? sums.data_ptr<float>() : nullptr, rows, width, kind);
    });
  }
  if (bias.defined()) result.bias = sums.sum(0).to(x.scalar_type());
  return result;
}

}  // namespace tessera::cuda
