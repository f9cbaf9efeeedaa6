#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "trainer/kernels/cuda/launch.cuh"
#include "trainer/kernels/cuda/model_kernels.h"
#include "trainer/kernels/cuda/tensor_table.cuh"

// Each chunk's sum in float32, then all of them in float64 by one block: always in the same order.
namespace tessera::cuda {
namespace {

constexpr int threads = 256;
constexpr int64_t chunk = 16384;

struct SquaresEntry {
  const void* data;
  int64_t count;
  int first_block;
  at::ScalarType type;
};
using SquaresTable = TensorTable<SquaresEntry>;

/// The sum of `value` over the block, for its first thread.
template <class T>
__device__ T sum_over_block(T value) {
  __shared__ T values[threads];
  values[threadIdx.x] = value;
  for (unsigned half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) values[threadIdx.x] += values[threadIdx.x + half];
  }
  return values[0];
}

template <class T>
__device__ float sum_of_thread(const T* data, int64_t count) {
  constexpr int width = 16 / sizeof(T);
  float total = 0;
  int64_t done = 0;
  if (aligned_to_16(data)) {
    done = count / width * width;
#pragma unroll 4
    for (int64_t at = threadIdx.x * width; at < done; at += threads * width) {
      T values[width];
      load_vector(data + at, values);
#pragma unroll
      for (int i = 0; i < width; ++i) total += static_cast<float>(values[i]) * static_cast<float>(values[i]);
    }
  }
  for (int64_t at = done + threadIdx.x; at < count; at += threads) {
    const float value = static_cast<float>(data[at]);
    total += value * value;
  }
  return total;
}

__global__ void __launch_bounds__(threads) chunks_kernel(const __grid_constant__ SquaresTable table, float* sums) {
  const SquaresEntry entry = table.of_block();
  const int64_t begin = static_cast<int64_t>(blockIdx.x - entry.first_block) * chunk;
  const int64_t count = entry.count - begin < chunk ? entry.count - begin : chunk;
  const float own = visit_type(entry.type, [&](auto zero) {
    return sum_of_thread(static_cast<const decltype(zero)*>(entry.data) + begin, count);
  });
  const float total = sum_over_block(own);
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

__global__ void __launch_bounds__(threads) total_kernel(const float* sums, int64_t count, float* result) {
  double own = 0;
  for (int64_t i = threadIdx.x; i < count; i += threads) own += sums[i];
  const double total = sum_over_block(own);
  if (threadIdx.x == 0) *result = static_cast<float>(total);
}

}  // namespace

at::Tensor sum_of_squares(const std::vector<at::Tensor>& tensors) {
  const DeviceGuard guard(tensors.front().device());
  int64_t blocks = 0;
  for (const at::Tensor& each : tensors) blocks += num_chunks(each.numel(), chunk);
  const at::Tensor sums = at::empty({blocks}, tensors.front().options().dtype(at::kFloat));
  const at::Tensor result = at::empty({}, sums.options());
  SquaresTable table;
  float* out = sums.data_ptr<float>();
  const auto run = [&] {
    if (table.size > 0) launch(chunks_kernel, table.num_blocks, threads, table, out);
    out += table.num_blocks;
    table.clear();
  };
  for (const at::Tensor& each : tensors) {
    if (each.numel() == 0) continue;
    table.add({data_of(each), each.numel(), 0, each.scalar_type()}, num_chunks(each.numel(), chunk));
    if (table.full()) run();
  }
  run();
  launch(total_kernel, 1, threads, sums.const_data_ptr<float>(), blocks, result.data_ptr<float>());
  return result;
}

}  // namespace tessera::cuda
