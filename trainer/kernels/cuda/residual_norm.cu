#include <ATen/core/Tensor.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "trainer/kernels/cuda/launch.cuh"
#include "trainer/kernels/cuda/model_kernels.h"
#include "trainer/kernels/cuda/philox.cuh"

// One block works on a row; thread t has the groups of 8 elements t, t + threads, …
namespace tessera::cuda {
namespace {

constexpr int threads = 128;

template <class T>
__global__ void dropout_kernel(const T* x, T* y, int64_t width, Site site) {
  const int64_t row = blockIdx.x;
  for (int64_t group = threadIdx.x; group * 8 < width; group += threads) {
    float factors[8];
    dropout_factors(site, row, static_cast<uint32_t>(group), factors);
    for (int i = 0; i < 8 && group * 8 + i < width; ++i) {
      const int64_t at = row * width + group * 8 + i;
      y[at] = static_cast<T>(static_cast<float>(x[at]) * factors[i]);
    }
  }
}

template <class T>
struct Forward {
  const T *x, *bias, *residual, *weight, *shift;
  T *sum, *normed;
  float *mean, *rstd;
  int64_t width;
  float epsilon;
};

template <class T>
__device__ float write_sum(const Forward<T>& data, const Site& site, int64_t row) {
  float total = 0;
  for (int64_t group = threadIdx.x; group * 8 < data.width; group += threads) {
    float factors[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    if (site.samples) dropout_factors(site, row, static_cast<uint32_t>(group), factors);
    for (int i = 0; i < 8 && group * 8 + i < data.width; ++i) {
      const int64_t column = group * 8 + i, at = row * data.width + column;
      float value = static_cast<float>(data.x[at]);
      if (data.bias) value += static_cast<float>(data.bias[column]);
      value *= factors[i];
      if (data.residual) value += static_cast<float>(data.residual[at]);
      const T rounded = static_cast<T>(value);
      if (data.sum != data.x) data.sum[at] = rounded;
      total += static_cast<float>(rounded);
    }
  }
  return total;
}

template <class T>
__global__ void forward_kernel(Forward<T> data, Site site) {
  const int64_t row = blockIdx.x;
  const float total = write_sum(data, site, row);
  if (!data.normed) return;
  const float mean = block_sum(total) / static_cast<float>(data.width);
  // Each thread reads back only what it wrote itself.
  float squares = 0;
  for (int64_t group = threadIdx.x; group * 8 < data.width; group += threads) {
    for (int i = 0; i < 8 && group * 8 + i < data.width; ++i) {
      const float distance = static_cast<float>(data.sum[row * data.width + group * 8 + i]) - mean;
      squares += distance * distance;
    }
  }
  const float rstd = rsqrtf(block_sum(squares) / static_cast<float>(data.width) + data.epsilon);
  for (int64_t group = threadIdx.x; group * 8 < data.width; group += threads) {
    for (int i = 0; i < 8 && group * 8 + i < data.width; ++i) {
      const int64_t column = group * 8 + i, at = row * data.width + column;
      const float scaled = (static_cast<float>(data.sum[at]) - mean) * rstd;
      data.normed[at] =
          static_cast<T>(scaled * static_cast<float>(data.weight[column]) + static_cast<float>(data.shift[column]));
    }
  }
  if (threadIdx.x == 0) {
    data.mean[row] = mean;
    data.rstd[row] = rstd;
  }
}

template <class T>
struct Backward {
  const T *sum_gradient, *normed_gradient, *sum, *weight;
  const float *mean, *rstd;
  T *residual, *x;                              // x is residual where nothing was dropped
  float *weight_sums, *shift_sums, *bias_sums;  // [blocks, width] partial sums, or null
  int64_t rows, width;
};

template <class T>
__device__ float2 weighted_sums(const Backward<T>& data, int64_t row) {
  float weighted = 0, weighted_scaled = 0;
  const float mean = data.mean[row], rstd = data.rstd[row];
  for (int64_t group = threadIdx.x; group * 8 < data.width; group += threads) {
    for (int i = 0; i < 8 && group * 8 + i < data.width; ++i) {
      const int64_t column = group * 8 + i, at = row * data.width + column;
      const float g = static_cast<float>(data.normed_gradient[at]);
      const float scaled = (static_cast<float>(data.sum[at]) - mean) * rstd;
      data.weight_sums[blockIdx.x * data.width + column] += g * scaled;
      data.shift_sums[blockIdx.x * data.width + column] += g;
      weighted += g * static_cast<float>(data.weight[column]);
      weighted_scaled += g * static_cast<float>(data.weight[column]) * scaled;
    }
  }
  weighted = block_sum(weighted);
  return {weighted / static_cast<float>(data.width), block_sum(weighted_scaled) / static_cast<float>(data.width)};
}

template <class T>
__device__ void backward_row(const Backward<T>& data, const Site& site, int64_t row) {
  const float2 means = data.normed_gradient ? weighted_sums(data, row) : make_float2(0, 0);
  for (int64_t group = threadIdx.x; group * 8 < data.width; group += threads) {
    float factors[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    if (site.samples) dropout_factors(site, row, static_cast<uint32_t>(group), factors);
    for (int i = 0; i < 8 && group * 8 + i < data.width; ++i) {
      const int64_t column = group * 8 + i, at = row * data.width + column;
      float total = data.sum_gradient ? static_cast<float>(data.sum_gradient[at]) : 0.0f;
      if (data.normed_gradient) {
        const float scaled = (static_cast<float>(data.sum[at]) - data.mean[row]) * data.rstd[row];
        const float g = static_cast<float>(data.normed_gradient[at]) * static_cast<float>(data.weight[column]);
        total += (g - means.x - scaled * means.y) * data.rstd[row];
      }
      data.residual[at] = static_cast<T>(total);
      if (data.x != data.residual) data.x[at] = static_cast<T>(total * factors[i]);
      if (data.bias_sums) data.bias_sums[blockIdx.x * data.width + column] += total * factors[i];
    }
  }
}

template <class T>
__global__ void backward_kernel(Backward<T> data, Site site) {
  for (int64_t row = blockIdx.x; row < data.rows; row += gridDim.x) backward_row(data, site, row);
}

template <class T>
T* pointer(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.data_ptr<T>() : nullptr;
}

}  // namespace

at::Tensor dropout(const at::Tensor& x, const DropoutSite& site) {
  if (!site.active() || x.numel() == 0) return x;
  const DeviceGuard guard(x.device());
  at::Tensor y = at::empty_like(x);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "dropout", [&] {
    launch(dropout_kernel<scalar_t>, static_cast<unsigned>(x.size(0)), threads, 
        x.data_ptr<scalar_t>(), y.data_ptr<scalar_t>(), x.size(1), Site(site));
  });
  return y;
}

ResidualNormOutput residual_norm(const ResidualNormInput& input) {
  const bool adds = input.bias.defined() || input.residual.defined() || input.dropout.active();
  const bool norms = input.weight.defined();
  ResidualNormOutput output;
  output.sum = adds ? at::empty_like(input.x) : input.x;
  if (!adds && !norms) return output;
  const DeviceGuard guard(input.x.device());
  if (norms) {
    output.normed = at::empty_like(input.x);
    output.mean = at::empty({input.x.size(0)}, input.x.options().dtype(at::kFloat));
    output.rstd = at::empty_like(output.mean);
  }
  if (input.x.numel() == 0) return output;
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.x.scalar_type(), "residual_norm", [&] {
    const Forward<scalar_t> data{pointer<scalar_t>(input.x),      pointer<scalar_t>(input.bias),
                                 pointer<scalar_t>(input.residual), pointer<scalar_t>(input.weight),
                                 pointer<scalar_t>(input.shift),  pointer<scalar_t>(output.sum),
                                 pointer<scalar_t>(output.normed), pointer<float>(output.mean),
                                 pointer<float>(output.rstd),     input.x.size(1),
                                 static_cast<float>(input.epsilon)};
    launch(forward_kernel<scalar_t>, static_cast<unsigned>(input.x.size(0)), threads, 
        data, Site(input.dropout));
  });
  return output;
}

ResidualNormGradient residual_norm_backward(const ResidualNormInput& input, const ResidualNormOutput& output,
                                            const at::Tensor& sum_gradient, const at::Tensor& normed_gradient) {
  const DeviceGuard guard(input.x.device());
  const int64_t rows = input.x.size(0), width = input.x.size(1), blocks = partial_blocks(rows);
  const at::ScalarType type = input.x.scalar_type();
  const auto partial = [&](bool wanted) {
    return wanted ? at::zeros({blocks, width}, input.x.options().dtype(at::kFloat)) : at::Tensor();
  };
  const at::Tensor weights = partial(normed_gradient.defined()), shifts = partial(normed_gradient.defined());
  const at::Tensor biases = partial(input.bias.defined());
  ResidualNormGradient gradient;
  gradient.residual = at::empty_like(input.x);
  gradient.x = input.dropout.active() ? at::empty_like(input.x) : gradient.residual;
  if (rows > 0) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, type, "residual_norm_backward", [&] {
      const Backward<scalar_t> data{pointer<scalar_t>(sum_gradient),
                                    pointer<scalar_t>(normed_gradient),
                                    pointer<scalar_t>(output.sum),
                                    pointer<scalar_t>(input.weight),
                                    pointer<float>(output.mean),
                                    pointer<float>(output.rstd),
                                    pointer<scalar_t>(gradient.residual),
                                    pointer<scalar_t>(gradient.x),
                                    pointer<float>(weights),
                                    pointer<float>(shifts),
                                    pointer<float>(biases),
                                    rows,
                                    width};
      launch(backward_kernel<scalar_t>, static_cast<unsigned>(blocks), threads, 
          data, Site(input.dropout));
    });
  }
  if (biases.defined()) gradient.bias = biases.sum(0).to(type);
  if (weights.defined()) {
    gradient.weight = weights.sum(0).to(type);
    gradient.shift = shifts.sum(0).to(type);
  }
  return gradient;
}

}  // namespace tessera::cuda
