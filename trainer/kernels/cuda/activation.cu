#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>

#include <optional>

#include "trainer/kernels/cuda/column_sums.cuh"
#include "trainer/kernels/cuda/model_kernels.h"

// A block's warps work on a row each; a thread keeps to eight columns, and so reads their bias once.
namespace tessera::cuda {
namespace {

constexpr int lanes = 32, warps = 8;
constexpr int block_columns = lanes * 8;
constexpr float normal_peak = 0.39894228040143268f, root_half = 0.70710678118654752f;
constexpr float root_two_over_pi = 0.79788456080286536f, cubic = 0.044715f;

struct Relu {
  static __device__ float value(float x) { return fmaxf(x, 0.0f); }
  static __device__ float slope(float x) { return x > 0 ? 1.0f : 0.0f; }
};

struct GeluErf {
  static __device__ float share(float x) { return 0.5f + 0.5f * erff(x * root_half); }
  static __device__ float value(float x) { return x * share(x); }
  static __device__ float slope(float x) { return share(x) + x * normal_peak * __expf(-0.5f * x * x); }
};

// (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u))
struct GeluTanh {
  static __device__ float share(float x) {
    return __fdividef(1.0f, 1.0f + __expf(-2.0f * root_two_over_pi * (x + cubic * x * x * x)));
  }
  static __device__ float value(float x) { return x * share(x); }
  static __device__ float slope(float x) {
    const float part = share(x);
    return part + x * part * (1.0f - part) * 2.0f * root_two_over_pi * (1.0f + 3.0f * cubic * x * x);
  }
};

template <class Function>
__device__ void apply(float (&x)[8], const float (&bias)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) x[i] = Function::value(x[i] + bias[i]);
}

template <class Function>
__device__ void apply_slope(const float (&x)[8], const float (&bias)[8], float (&gradient)[8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) gradient[i] *= Function::slope(x[i] + bias[i]);
}

template <class T>
struct Forward {
  const T *x, *bias;
  T* y;
  int64_t rows;
  int width;
  Activation kind;
};

template <class T, bool Aligned>
__global__ void __launch_bounds__(lanes* warps) forward_kernel(Forward<T> data) {
  constexpr int batch = 4;  // rows of a thread whose loads are under way together
  const int column = static_cast<int>(blockIdx.x * lanes + threadIdx.x) * 8;
  if (column >= data.width) return;
  const int count = count_at<Aligned>(column, data.width);
  float bias[8] = {};
  if (data.bias) widen(load_eight<Aligned>(data.bias + column, count), bias);
  const int64_t step = int64_t{gridDim.y} * warps;
  for (int64_t first = int64_t{blockIdx.y} * warps + threadIdx.y; first < data.rows; first += batch * step) {
    Eight<T> packs[batch];
#pragma unroll
    for (int k = 0; k < batch; ++k) {
      const int64_t row = first + k * step;
      if (row < data.rows) packs[k] = load_eight<Aligned>(data.x + row * data.width + column, count);
    }
#pragma unroll
    for (int k = 0; k < batch; ++k) {
      const int64_t row = first + k * step;
      if (row >= data.rows) break;
      float values[8];
      widen(packs[k], values);
      if (data.kind == Activation::gelu_erf) apply<GeluErf>(values, bias);
      if (data.kind == Activation::gelu_tanh) apply<GeluTanh>(values, bias);
      if (data.kind == Activation::relu) apply<Relu>(values, bias);
      store_eight<Aligned>(data.y + row * data.width + column, count, narrow_eight<T>(values));
    }
  }
}

template <class T>
struct Backward {
  const T *gradient, *x, *bias;
  T* out;
  Partials sums;  // of the bias's gradient; empty without a bias
  int64_t rows;
  int width;
  Activation kind;
};

// The gradient of eight elements, also added to the thread's sums.
template <class T>
__device__ Eight<T> gradient_of(const Eight<T>& above, const Eight<T>& x, const float (&bias)[8], Activation kind,
                                float (&sums)[8]) {
  float gradient[8], values[8];
  widen(above, gradient);
  widen(x, values);
  if (kind == Activation::gelu_erf) apply_slope<GeluErf>(values, bias, gradient);
  if (kind == Activation::gelu_tanh) apply_slope<GeluTanh>(values, bias, gradient);
  if (kind == Activation::relu) apply_slope<Relu>(values, bias, gradient);
#pragma unroll
  for (int i = 0; i < 8; ++i) sums[i] += gradient[i];
  return narrow_eight<T>(gradient);
}

// The block's sums, of the sums that its warps have for the same columns.
template <class T>
__device__ void write_sums(const Backward<T>& data, const float (&sums)[8]) {
  __shared__ float of_warps[warps][block_columns];
#pragma unroll
  for (int i = 0; i < 8; ++i) of_warps[threadIdx.y][threadIdx.x * 8 + i] = sums[i];
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.y * lanes + threadIdx.x);
  const int column = static_cast<int>(blockIdx.x) * block_columns + thread;
  if (column >= data.width) return;
  float total = 0;
#pragma unroll
  for (int warp = 0; warp < warps; ++warp) total += of_warps[warp][thread];
  data.sums.at(0, static_cast<int>(blockIdx.y))[column] = total;
}

template <class T, bool Aligned>
__global__ void __launch_bounds__(lanes* warps) backward_kernel(Backward<T> data) {
  static_assert(lanes * warps == block_columns, "write_sums() has a column per thread");
  constexpr int batch = 2;
  const int column = static_cast<int>(blockIdx.x * lanes + threadIdx.x) * 8;
  const int count = count_at<Aligned>(column, data.width);
  const int64_t rows = column < data.width ? data.rows : 0;
  float bias[8] = {}, sums[8] = {};
  if (data.bias && rows > 0) widen(load_eight<Aligned>(data.bias + column, count), bias);
  const int64_t step = int64_t{gridDim.y} * warps;
  for (int64_t first = int64_t{blockIdx.y} * warps + threadIdx.y; first < rows; first += batch * step) {
    Eight<T> above[batch], x[batch];
#pragma unroll
    for (int k = 0; k < batch; ++k) {
      const int64_t row = first + k * step;
      if (row >= rows) break;
      above[k] = load_eight<Aligned>(data.gradient + row * data.width + column, count);
      x[k] = load_eight<Aligned>(data.x + row * data.width + column, count);
    }
#pragma unroll
    for (int k = 0; k < batch; ++k) {
      const int64_t row = first + k * step;
      if (row >= rows) break;
      const Eight<T> gradient = gradient_of(above[k], x[k], bias, data.kind, sums);
      store_eight<Aligned>(data.out + row * data.width + column, count, gradient);
    }
  }
  if (data.sums.blocks > 0) write_sums(data, sums);
}

// So many blocks a multiprocessor, where there are rows enough. Two or three of them run there together, so that of a
// multiple of six none is left for last.
dim3 grid_for(int64_t rows, int64_t width, int64_t blocks) {
  const int64_t columns = (width + block_columns - 1) / block_columns;
  const int64_t wanted = std::max<int64_t>(1, blocks * multiprocessors() / columns);
  return {static_cast<unsigned>(columns),
          static_cast<unsigned>(std::min({wanted, (rows + warps - 1) / warps, int64_t{65535}}))};
}

}  // namespace

at::Tensor activation(const at::Tensor& x, const at::Tensor& bias, Activation kind) {
  at::Tensor y = at::empty_like(x);
  if (x.numel() == 0) return y;
  const DeviceGuard guard(x.device());
  const int64_t rows = x.size(0), width = x.size(1);
  dispatch(x.scalar_type(), aligned_rows(width, x, bias, y), [&](auto zero, auto aligned) {
    using T = decltype(zero);
    const Forward<T> data{x.data_ptr<T>(), pointer<T>(bias), y.data_ptr<T>(), rows, static_cast<int>(width), kind};
    launch(forward_kernel<T, aligned.value>, grid_for(rows, width, 12), dim3(lanes, warps), data);
  });
  return y;
}

ActivationGradient activation_backward(const at::Tensor& gradient, const at::Tensor& x, const at::Tensor& bias,
                                       Activation kind) {
  ActivationGradient result{at::empty_like(x), {}};
  if (x.numel() == 0) {
    if (bias.defined()) result.bias = at::zeros_like(bias);
    return result;
  }
  const DeviceGuard guard(x.device());
  const int64_t rows = x.size(0), width = x.size(1);
  const dim3 grid = grid_for(rows, width, 6);
  std::optional<ColumnSums> sums;
  if (bias.defined()) sums.emplace(1, grid.y, width, x.options());
  dispatch(x.scalar_type(), aligned_rows(width, gradient, x, bias, result.x), [&](auto zero, auto aligned) {
    using T = decltype(zero);
    const Backward<T> data{gradient.data_ptr<T>(), x.data_ptr<T>(), pointer<T>(bias),
                           result.x.data_ptr<T>(), sums ? sums->partials() : Partials(), rows,
                           static_cast<int>(width), kind};
    launch(backward_kernel<T, aligned.value>, grid, dim3(lanes, warps), data);
  });
  if (sums) result.bias = sums->total(x.scalar_type()).select(0, 0);
  return result;
}

}  // namespace tessera::cuda
