#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>

#include "recipes/random.h"

namespace tessera {

/// Where `index` goes in the permutation of [0, size) that `key` picks; 0 <= index < size. Computed on the
/// spot: a Feistel network permutes the next power of two, and results outside [0, size) are sent through it
/// again, fewer than twice on average (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA
/// 2002).
inline int64_t permute(int64_t index, int64_t size, uint64_t key) {
  if (size < 2) return index;
  constexpr int rounds = 8;  // even, so that the two halves end where they began
  const int bits = std::max(2, static_cast<int>(std::bit_width(static_cast<uint64_t>(size - 1))));
  int left_bits = bits / 2, right_bits = bits - bits / 2;
  auto value = static_cast<uint64_t>(index);
  do {
    uint64_t left = value >> right_bits, right = value & ((uint64_t{1} << right_bits) - 1);
    int a = left_bits, b = right_bits;
    for (int round = 0; round < rounds; ++round) {
      const uint64_t swapped = (left ^ mix(key + round, right)) & ((uint64_t{1} << a) - 1);
      left = right;
      right = swapped;
      std::swap(a, b);
    }
    value = left << right_bits | right;
  } while (value >= static_cast<uint64_t>(size));
  return static_cast<int64_t>(value);
}

}  // namespace tessera
