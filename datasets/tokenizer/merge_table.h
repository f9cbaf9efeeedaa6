#pragma once
#include <cstdint>
#include <limits>
#include <vector>

namespace tessera {

/// Pairs of token ids -> the rank of their merge and the token that it makes: a flat hash table.
class MergeTable {
 public:
  static constexpr int32_t no_rank = std::numeric_limits<int32_t>::max();
  struct Merge {
    int32_t rank = no_rank;
    int32_t id = -1;
  };

  void reserve(size_t num_merges) {
    size_t size = 16;
    while (size < 2 * num_merges) size *= 2;
    slots_.assign(size, {});
    mask_ = size - 1;
  }
  /// At most as many different pairs as reserved; the last value of a pair counts.
  void set(int32_t left, int32_t right, int32_t rank, int32_t id) {
    slots_[slot(left, right)] = {key(left, right), {rank, id}};
  }
  Merge find(int32_t left, int32_t right) const { return slots_[slot(left, right)].merge; }

 private:
  static constexpr uint64_t empty = ~uint64_t{0};
  struct Slot {
    uint64_t key = empty;
    Merge merge;
  };
  static uint64_t key(int32_t left, int32_t right) {
    return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
  }
  size_t slot(int32_t left, int32_t right) const {
    const uint64_t k = key(left, right);
    uint64_t hash = k * 0x9E3779B97F4A7C15ull;
    hash ^= hash >> 32;
    size_t i = hash & mask_;
    while (slots_[i].key != k && slots_[i].key != empty) i = (i + 1) & mask_;
    return i;
  }

  std::vector<Slot> slots_ = std::vector<Slot>(16);
  size_t mask_ = 15;
};

}  // namespace tessera
