#pragma once
#include <ATen/ops/empty.h>

#include "trainer/kernels/cuda/rows.cuh"

/// Sums over rows: each block makes its own, written once, and a second kernel adds them up in the order of blocks, so
/// that the result does not depend on which block was first.
namespace tessera::cuda {

struct Partials {
  float* sums = nullptr;  ///< [sums, blocks, stride]
  int64_t stride = 0;     ///< width, rounded up to whole packs
  int blocks = 0;

  __device__ float* at(int sum, int block) const { return sums + (int64_t{sum} * blocks + block) * stride; }
};

/// Memory for so many sums of rows of this width, from so many blocks.
class ColumnSums {
 public:
  ColumnSums(int64_t sums, int64_t blocks, int64_t width, const at::TensorOptions& options)
      : memory_(at::empty({sums, blocks, (width + 7) / 8 * 8}, options.dtype(at::kFloat))), width_(width) {}
  Partials partials() const {
    return {memory_.data_ptr<float>(), memory_.size(2), static_cast<int>(memory_.size(1))};
  }
  /// [sums, width]
  at::Tensor total(at::ScalarType type) const;

 private:
  at::Tensor memory_;
  int64_t width_;
};

namespace {

constexpr int total_columns = 4, total_rows = 64;  // eights of columns, blocks' sums beside each other

template <class T>
__global__ void __launch_bounds__(total_columns* total_rows) total_kernel(Partials partials, T* out, int width) {
  __shared__ float sums[total_rows][total_columns * 8 + 1];
  const int column = static_cast<int>(blockIdx.x * total_columns + threadIdx.x) * 8;
  float mine[8] = {};
  if (column < width) {
#pragma unroll 4
    for (int block = static_cast<int>(threadIdx.y); block < partials.blocks; block += total_rows) {
      float values[8];
      widen(load_eight<true>(partials.at(static_cast<int>(blockIdx.y), block) + column, 8), values);
#pragma unroll
      for (int i = 0; i < 8; ++i) mine[i] += values[i];
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) sums[threadIdx.y][threadIdx.x * 8 + i] = mine[i];
  __syncthreads();
  const int thread = static_cast<int>(threadIdx.y * total_columns + threadIdx.x);
  const int first = static_cast<int>(blockIdx.x) * total_columns * 8;
  if (thread >= total_columns * 8 || first + thread >= width) return;
  float total = 0;
  for (int row = 0; row < total_rows; ++row) total += sums[row][thread];
  out[int64_t{blockIdx.y} * width + first + thread] = static_cast<T>(total);
}

}  // namespace

inline at::Tensor ColumnSums::total(at::ScalarType type) const {
  const at::Tensor out = at::empty({memory_.size(0), width_}, memory_.options().dtype(type));
  if (out.numel() == 0) return out;
  const dim3 grid(static_cast<unsigned>((width_ + total_columns * 8 - 1) / (total_columns * 8)),
                  static_cast<unsigned>(memory_.size(0)));
  dispatch(type, true, [&](auto zero, auto) {
    using T = decltype(zero);
    launch(total_kernel<T>, grid, dim3(total_columns, total_rows), partials(), out.data_ptr<T>(),
           static_cast<int>(width_));
  });
  return out;
}

}  // namespace tessera::cuda
