#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>

// CUDA's language on a CPU: enough of it that our .cu files compile as C++. A block's threads are fibres of
// one thread, which run in turn from one barrier or shuffle to the next; blocks run one after the other.

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static  // one block runs at a time
#define __launch_bounds__(...)
#define __grid_constant__

struct uint2 {
  uint32_t x, y;
};
struct uint3 {
  uint32_t x, y, z;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct dim3 {
  uint32_t x = 1, y = 1, z = 1;
  constexpr dim3(uint32_t x_ = 1, uint32_t y_ = 1, uint32_t z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

/// Of the fibre that runs.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;

namespace fibres {

/// A kernel that CUDA would let hang, or whose result it would leave open.
struct KernelError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// In which order blocks run, and a block's threads between two barriers: what is right does not depend on
/// it.
enum class Order { ascending, descending, shuffled };
void set_order(Order order);

/// A launch: `kernel` once per thread. Throws KernelError.
void run(size_t shared_bytes, dim3 grid, dim3 block, const std::function<void()>& kernel);

constexpr size_t max_shared_bytes = 232448;  ///< a Hopper block's
/// The block's; neighbours are poisoned under AddressSanitizer.
void* dynamic_shared();

/// Where a barrier or a shuffle was called: all threads must be at the same one.
struct Place {
  const char* file;
  int line;
  bool operator==(const Place& other) const {
    return line == other.line && std::strcmp(file, other.file) == 0;
  }
};
void barrier(Place place);
/// Waits for the lanes of `mask`; gives the value of lane `source`.
uint64_t exchange(uint32_t mask, uint64_t value, uint32_t source, Place place);
/// Waits for the lanes of `mask`; gives the set of those whose predicate is true.
uint32_t vote(uint32_t mask, bool predicate, Place place);

inline uint32_t thread_number() {
  return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
}
inline uint32_t lane() { return thread_number() % 32; }

/// Throws KernelError unless the address is a multiple of 16.
void check_alignment(const void* address);

template <class T>
T shuffle(uint32_t mask, T value, uint32_t source, Place place) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = exchange(mask, bits, source, place);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace fibres

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  fibres::barrier({file, line});
}
inline void __syncwarp(uint32_t mask = ~0u, const char* file = __builtin_FILE(),
                       int line = __builtin_LINE()) {
  fibres::vote(mask, true, {file, line});
}
inline uint32_t __ballot_sync(uint32_t mask, bool predicate, const char* file = __builtin_FILE(),
                              int line = __builtin_LINE()) {
  return fibres::vote(mask, predicate, {file, line});
}
template <class T>
T __shfl_sync(uint32_t mask, T value, int source, const char* file = __builtin_FILE(),
              int line = __builtin_LINE()) {
  return fibres::shuffle(mask, value, static_cast<uint32_t>(source) % 32, {file, line});
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int bits, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE()) {
  return fibres::shuffle(mask, value, fibres::lane() ^ static_cast<uint32_t>(bits), {file, line});
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, uint32_t delta, const char* file = __builtin_FILE(),
                   int line = __builtin_LINE()) {
  const uint32_t mine = fibres::lane(), source = mine + delta;
  return fibres::shuffle(mask, value, source < 32 ? source : mine, {file, line});
}

template <class T>
T atomicAdd(T* to, T value) {
  const T before = *to;
  *to += value;
  return before;
}
template <class T>
T __ldg(const T* from) {
  return *from;
}
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdividef(float a, float b) { return a / b; }
inline float normcdff(float x) { return 0.5f * std::erfc(-x * 0.70710678118654752f); }
