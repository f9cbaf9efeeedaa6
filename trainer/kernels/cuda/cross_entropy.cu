#include <ATen/core/Tensor.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>

#include "trainer/kernels/cuda/launch.cuh"
#include "trainer/kernels/cuda/model_kernels.h"
#include "trainer/kernels/cuda/philox.cuh"

namespace tessera::cuda {
namespace {

constexpr int threads = 512;

// One block a row. The label's logit counts as best where no other is larger and none before it is as large.
template <class T>
__global__ void cross_entropy_kernel(T* logits, const T* bias, const int64_t* labels, float* losses, float* correct,
                                     int64_t width) {
  T* row = logits + blockIdx.x * width;
  const int64_t label = labels[blockIdx.x];
  if (label < 0) {
    for (int64_t i = threadIdx.x; i < width; i += threads) row[i] = static_cast<T>(0.0f);
    if (threadIdx.x == 0) losses[blockIdx.x] = correct[blockIdx.x] = 0;
    return;
  }
  const auto value = [&](int64_t i) { return static_cast<float>(row[i]) + (bias ? static_cast<float>(bias[i]) : 0.0f); };
  const float own = value(label);
  float largest = -INFINITY, better = 0;
  for (int64_t i = threadIdx.x; i < width; i += threads) {
    const float each = value(i);
    largest = fmaxf(largest, each);
    if (each > own || (each == own && i < label)) better = 1;
  }
  largest = block_max(largest);
  better = block_max(better);
  float total = 0;
  for (int64_t i = threadIdx.x; i < width; i += threads) total += expf(value(i) - largest);
  total = block_sum(total);  // also a barrier: from here on nobody reads another thread's logits
  for (int64_t i = threadIdx.x; i < width; i += threads) {
    const float probability = expf(value(i) - largest) / total;
    row[i] = static_cast<T>(i == label ? probability - 1 : probability);
  }
  if (threadIdx.x == 0) {
    losses[blockIdx.x] = logf(total) + largest - own;
    correct[blockIdx.x] = better > 0 ? 0.0f : 1.0f;
  }
}

}  // namespace

CrossEntropy cross_entropy(at::Tensor& logits, const at::Tensor& bias, const at::Tensor& labels) {
  const DeviceGuard guard(logits.device());
  const int64_t rows = logits.size(0);
  const at::Tensor losses = at::empty({rows}, logits.options().dtype(at::kFloat)), correct = at::empty_like(losses);
  if (rows > 0) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, logits.scalar_type(), "cross_entropy", [&] {
      launch(cross_entropy_kernel<scalar_t>, static_cast<unsigned>(rows), threads, 
          logits.data_ptr<scalar_t>(), bias.defined() ? bias.data_ptr<scalar_t>() : nullptr, labels.data_ptr<int64_t>(),
          losses.data_ptr<float>(), correct.data_ptr<float>(), logits.size(1));
    });
  }
  return {losses.sum(), correct.sum()};
}

}  // namespace tessera::cuda
