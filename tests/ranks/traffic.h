#pragma once
#include <bit>
#include <cstdint>

namespace tessera {

/// What a rank sends in an all-reduce over MPI of `count` elements of `width` bytes, from the algorithms'
/// papers: small ones by recursive doubling, others by rings, each of a lane of at most 128 KiB per rank.
inline int64_t all_reduce_bytes(int64_t count, int64_t width, int rank, int size) {
  if (size == 1) return 0;
  if (count * width <= 32 << 10) {
    const int power = static_cast<int>(std::bit_floor(static_cast<unsigned>(size)));
    const int extra = size - power;
    const int rounds = std::countr_zero(static_cast<unsigned>(power));
    if (rank >= 2 * extra) return rounds * count * width;
    return rank % 2 == 0 ? count * width : (rounds + 1) * count * width;
  }
  const int64_t lane = (128 << 10) * size;
  const int64_t lanes = (count * width + lane - 1) / lane;
  int64_t elements = 0;
  for (int64_t i = 0; i < lanes; ++i) {
    const int64_t whole = (i + 1) * count / lanes - i * count / lanes;
    // A ring passes on all blocks but one, in each of its two rounds.
    for (const int not_sent : {rank + 1, rank + 2}) {
      const int64_t block = not_sent % size;
      elements += whole - ((block + 1) * whole / size - block * whole / size);
    }
  }
  return elements * width;
}

}  // namespace tessera
