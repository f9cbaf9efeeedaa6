#pragma once
#include <cstdint>

#include "trainer/kernels/cuda/launch.cuh"
#include "trainer/kernels/kernels.h"

namespace tessera::cuda {

/// A DropoutSite as kernels take it.
struct Site {
  uint64_t key;
  const int64_t* samples;
  int64_t sequence, first_position;
  const int64_t* positions;
  uint32_t threshold, first_group;
  float scale;

  explicit Site(const DropoutSite& site)
      : key(site.key),
        samples(site.active() ? site.samples.data_ptr<int64_t>() : nullptr),
        sequence(site.sequence),
        first_position(site.first_position),
        positions(site.positions.defined() ? site.positions.data_ptr<int64_t>() : nullptr),
        threshold(site.threshold),
        first_group(site.first_group),
        scale(site.active() ? site.scale() : 1.0f) {}
};

/// Philox4x32-10, as recipes/random.h.
__device__ inline uint4 philox(uint4 counter, uint2 key) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xD2511F53u, counter.x), low0 = 0xD2511F53u * counter.x;
    const uint32_t high1 = __umulhi(0xCD9E8D57u, counter.z), low1 = 0xCD9E8D57u * counter.z;
    counter = make_uint4(high1 ^ counter.y ^ key.x, low1, high0 ^ counter.w ^ key.y, low0);
    key.x += 0x9E3779B9u;
    key.y += 0xBB67AE85u;
  }
  return counter;
}

/// The factors (0 or scale) of elements 8 * group ... 8 * group + 7 of a row.
__device__ inline void dropout_factors(const Site& site, int64_t row, uint32_t group, float (&factors)[8]) {
  const auto sample = static_cast<uint64_t>(site.samples[row / site.sequence]);
  const int64_t column = row % site.sequence;
  const auto position = static_cast<uint32_t>(site.positions ? site.positions[column] : site.first_position + column);
  const uint4 bits = philox(make_uint4(static_cast<uint32_t>(sample), static_cast<uint32_t>(sample >> 32), position,
                                       site.first_group + group),
                            make_uint2(static_cast<uint32_t>(site.key), static_cast<uint32_t>(site.key >> 32)));
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t lane = words[i / 2] >> (i % 2 * 16) & 0xFFFFu;
    factors[i] = lane >= site.threshold ? site.scale : 0.0f;
  }
}

/// The sum of `value` over the block, for all its threads. At most 32 warps.
__device__ inline float block_sum(float value) {
  __shared__ float warps[32];
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  float total = 0;
  for (unsigned i = 0; i < blockDim.x / 32; ++i) total += warps[i];
  return total;
}

__device__ inline float block_max(float value) {
  __shared__ float warps[32];
  for (int offset = 16; offset > 0; offset /= 2) value = fmaxf(value, __shfl_xor_sync(0xFFFFFFFFu, value, offset));
  __syncthreads();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  float best = warps[0];
  for (unsigned i = 1; i < blockDim.x / 32; ++i) best = fmaxf(best, warps[i]);
  return best;
}

}  // namespace tessera::cuda
