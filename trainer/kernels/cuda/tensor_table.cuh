#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <cstring>

#include "trainer/kernels/cuda/launch.cuh"

/// Kernels over lists of tensors. The list travels in the launch's arguments, which hold 32,764 bytes: nothing is
/// copied to the device, and a model's hundreds of tensors take one launch or two. Each block has one chunk of one
/// tensor.
namespace tessera::cuda {

/// As many tensors as a launch takes, with 256 bytes to spare for its other arguments. Entry is plain, with an
/// `int first_block`.
template <class Entry>
struct TensorTable {
  static constexpr int capacity = (32764 - 256) / sizeof(Entry);
  Entry entries[capacity];
  int size = 0;
  int num_blocks = 0;

  void add(Entry entry, int64_t blocks) {
    entry.first_block = num_blocks;
    entries[size++] = entry;
    num_blocks += static_cast<int>(blocks);
  }
  void clear() { size = num_blocks = 0; }
  bool full() const { return size == capacity; }

  /// Whose chunks have block `blockIdx.x` among them.
  __device__ Entry of_block() const {
    int low = 0, high = size;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (entries[middle].first_block <= static_cast<int>(blockIdx.x) ? low : high) = middle;
    }
    return entries[low];
  }
};

inline int64_t num_chunks(int64_t elements, int64_t chunk) { return (elements + chunk - 1) / chunk; }

/// Neighbours, moved by one access of 16 or 8 bytes; the address must be a multiple of that.
template <class T, int count>
__device__ inline void load_vector(const T* from, T (&values)[count]) {
  if constexpr (sizeof(values) == 16) {
    const uint4 bits = load16(from);
    memcpy(static_cast<void*>(values), &bits, sizeof(bits));
  } else {
    static_assert(sizeof(values) == 8);
    const uint2 bits = *reinterpret_cast<const uint2*>(from);
    memcpy(static_cast<void*>(values), &bits, sizeof(bits));
  }
}

template <class T, int count>
__device__ inline void store_vector(T* to, const T (&values)[count]) {
  if constexpr (sizeof(values) == 16) {
    uint4 bits;
    memcpy(&bits, static_cast<const void*>(values), sizeof(bits));
    store16(to, bits);
  } else {
    static_assert(sizeof(values) == 8);
    uint2 bits;
    memcpy(&bits, static_cast<const void*>(values), sizeof(bits));
    *reinterpret_cast<uint2*>(to) = bits;
  }
}

/// `visit(T{})` with the T of a float32, bfloat16 or float16 tensor.
template <class Visit>
__device__ auto visit_type(at::ScalarType type, const Visit& visit) {
  if (type == at::kFloat) return visit(float{});
  if (type == at::kBFloat16) return visit(at::BFloat16{});
  return visit(at::Half{});
}

/// For an entry of a table. Also checks that visit_type() knows the type.
inline const void* data_of(const at::Tensor& tensor) {
  const at::ScalarType type = tensor.scalar_type();
  TORCH_INTERNAL_ASSERT(type == at::kFloat || type == at::kBFloat16 || type == at::kHalf);
  TORCH_INTERNAL_ASSERT(tensor.is_contiguous());
  return tensor.const_data_ptr();
}

__device__ inline bool aligned_to_16(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace tessera::cuda
