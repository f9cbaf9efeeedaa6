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

/// What the dropout of one row depends on.
struct RowDropout {
  uint32_t sample_low = 0, sample_high = 0, position = 0;
};

__device__ inline RowDropout dropout_of_row(const Site& site, int64_t row) {
  if (!site.samples) return {};
  // In 32 bits: a division of 64 takes as long as ten rounds of Philox.
  const auto number = static_cast<uint32_t>(row), sequence = static_cast<uint32_t>(site.sequence);
  const auto sample = static_cast<uint64_t>(site.samples[number / sequence]);
  const int64_t column = number % sequence;
  return {static_cast<uint32_t>(sample), static_cast<uint32_t>(sample >> 32),
          static_cast<uint32_t>(site.positions ? site.positions[column] : site.first_position + column)};
}

/// Drops or scales elements 8 * group ... 8 * group + 7 of a row.
__device__ inline void drop(const Site& site, const RowDropout& row, int group, float (&values)[8]) {
  if (!site.samples) return;
  const uint4 bits = philox(make_uint4(row.sample_low, row.sample_high, row.position,
                                       site.first_group + static_cast<uint32_t>(group)),
                            make_uint2(static_cast<uint32_t>(site.key), static_cast<uint32_t>(site.key >> 32)));
  const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t lane = words[i / 2] >> (i % 2 * 16) & 0xFFFFu;
    values[i] = lane >= site.threshold ? values[i] * site.scale : 0.0f;
  }
}

}  // namespace tessera::cuda
