#pragma once
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "trainer/kernels/cuda/launch.cuh"

/// Rows read and written 16 bytes at a time, and sums over the threads that share one.
namespace tessera::cuda {

/// Elements in 16 bytes.
template <class T>
constexpr int pack_size = 16 / static_cast<int>(sizeof(T));

template <class T>
__device__ inline void widen(const uint4& bytes, float* values) {
  T elements[pack_size<T>];
  memcpy(static_cast<void*>(elements), &bytes, sizeof(bytes));
#pragma unroll
  for (int i = 0; i < pack_size<T>; ++i) values[i] = static_cast<float>(elements[i]);
}

template <class T>
__device__ inline uint4 narrow(const float* values) {
  T elements[pack_size<T>];
#pragma unroll
  for (int i = 0; i < pack_size<T>; ++i) elements[i] = static_cast<T>(values[i]);
  uint4 bytes;
  memcpy(&bytes, static_cast<const void*>(elements), sizeof(bytes));
  return bytes;
}

/// Eight neighbouring elements of a row, which share one number of dropout's.
template <class T>
struct Eight {
  static constexpr int packs = 8 / pack_size<T>;
  uint4 bytes[packs];
};

template <class T>
__device__ inline void widen(const Eight<T>& eight, float (&values)[8]) {
#pragma unroll
  for (int i = 0; i < Eight<T>::packs; ++i) widen<T>(eight.bytes[i], values + i * pack_size<T>);
}

template <class T>
__device__ inline Eight<T> narrow_eight(const float (&values)[8]) {
  Eight<T> eight;
#pragma unroll
  for (int i = 0; i < Eight<T>::packs; ++i) eight.bytes[i] = narrow<T>(values + i * pack_size<T>);
  return eight;
}

/// How many of the eight elements from `column` on are the row's.
template <bool Aligned>
__device__ inline int count_at(int column, int width) {
  return Aligned || width - column > 8 ? 8 : width - column;
}

/// Elements past `count` are zero. Aligned: `from` is a multiple of 16 and `count` is 8.
template <bool Aligned, class T>
__device__ inline Eight<T> load_eight(const T* from, int count) {
  Eight<T> eight;
  if constexpr (Aligned) {
#pragma unroll
    for (int i = 0; i < Eight<T>::packs; ++i) eight.bytes[i] = load16(from + i * pack_size<T>);
  } else {
    float values[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = i < count ? static_cast<float>(from[i]) : 0.0f;
    eight = narrow_eight<T>(values);
  }
  return eight;
}

template <bool Aligned, class T>
__device__ inline void store_eight(T* to, int count, const Eight<T>& eight) {
  if constexpr (Aligned) {
#pragma unroll
    for (int i = 0; i < Eight<T>::packs; ++i) store16(to + i * pack_size<T>, eight.bytes[i]);
  } else {
    float values[8];
    widen(eight, values);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i < count) to[i] = static_cast<T>(values[i]);
    }
  }
}

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Largest {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/// Joins each value over the block's threads (whole warps, in one dimension), for all of them. Calls that follow each
/// other take turns with `buffer`, 0 and 1: one barrier each is then enough.
template <class Join, int N>
__device__ inline void block_join(float (&values)[N], int buffer) {
  __shared__ float warps[2][N][32];
  const Join join;
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      values[n] = join(values[n], __shfl_xor_sync(0xFFFFFFFFu, values[n], offset));
    }
    if (threadIdx.x % 32 == 0) warps[buffer][n][threadIdx.x / 32] = values[n];
  }
  __syncthreads();
#pragma unroll
  for (int n = 0; n < N; ++n) {
    values[n] = warps[buffer][n][0];
    for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) values[n] = join(values[n], warps[buffer][n][warp]);
  }
}

/// Threads that share a row of so many pieces: whole warps.
constexpr int max_row_threads = 512;
inline unsigned row_threads(int64_t pieces) {
  return static_cast<unsigned>(std::clamp<int64_t>((pieces + 31) / 32 * 32, 32, max_row_threads));
}

/// Whether rows of this width, and all these tensors (some undefined), can be passed 16 bytes at a time.
template <class... Tensors>
bool aligned_rows(int64_t width, const Tensors&... tensors) {
  return width % 8 == 0 &&
         (... && (!tensors.defined() || reinterpret_cast<uintptr_t>(tensors.data_ptr()) % 16 == 0));
}

/// Calls body(T{}, std::bool_constant<Aligned>{}) for this type of data.
template <class Body>
void dispatch(at::ScalarType type, bool aligned, const Body& body) {
  const auto with_type = [&](auto zero) { aligned ? body(zero, std::true_type{}) : body(zero, std::false_type{}); };
  if (type == at::kFloat) return with_type(float{});
  if (type == at::kBFloat16) return with_type(c10::BFloat16{});
  TORCH_CHECK(type == at::kHalf, "no kernels for data of this type");
  with_type(c10::Half{});
}

template <class T>
T* pointer(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.data_ptr<T>() : nullptr;
}

}  // namespace tessera::cuda
