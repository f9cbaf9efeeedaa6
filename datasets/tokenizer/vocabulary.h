#pragma once
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

/// A hash table from byte strings to 64-bit values: strings in one arena, open addressing, no erasing.
/// Strings get numbers 0, 1, … in order of insertion.
class StringMap {
 public:
  static constexpr size_t none = ~size_t{0};

  size_t size() const { return entries_.size(); }
  std::string_view key(size_t number) const {
    return {arena_.data() + entries_[number].offset, entries_[number].length};
  }
  int64_t& value(size_t number) { return entries_[number].value; }
  int64_t value(size_t number) const { return entries_[number].value; }

  size_t find(std::string_view key) const {
    if (slots_.empty()) return none;
    const uint64_t hash = hash_of(key);
    for (size_t slot = hash & mask_;; slot = (slot + 1) & mask_) {
      const Slot& s = slots_[slot];
      if (s.number == empty) return none;
      if (s.tag == static_cast<uint32_t>(hash >> 32) && this->key(s.number) == key) return s.number;
    }
  }

  /// The number of `key`, which is added with value 0 where it is new.
  size_t insert(std::string_view key) {
    const size_t found = find(key);
    if (found != none) return found;
    if ((entries_.size() + 1) * 2 > slots_.size()) grow();
    entries_.push_back({arena_.size(), static_cast<uint32_t>(key.size()), 0});
    arena_.append(key);
    place(hash_of(key), static_cast<uint32_t>(entries_.size() - 1));
    return entries_.size() - 1;
  }

 private:
  static constexpr uint32_t empty = ~uint32_t{0};
  struct Entry {
    size_t offset;
    uint32_t length;
    int64_t value;
  };
  struct Slot {
    uint32_t tag = 0, number = empty;
  };
  static uint64_t hash_of(std::string_view key) { return XXH3_64bits(key.data(), key.size()); }
  void place(uint64_t hash, uint32_t number) {
    size_t slot = hash & mask_;
    while (slots_[slot].number != empty) slot = (slot + 1) & mask_;
    slots_[slot] = {static_cast<uint32_t>(hash >> 32), number};
  }
  void grow() {
    slots_.assign(slots_.empty() ? 64 : slots_.size() * 2, Slot{});
    mask_ = slots_.size() - 1;
    for (size_t i = 0; i < entries_.size(); ++i) place(hash_of(key(i)), static_cast<uint32_t>(i));
  }

  std::string arena_;
  std::vector<Entry> entries_;
  std::vector<Slot> slots_;
  size_t mask_ = 0;
};

/// Tokens and their ids, both ways.
class Vocabulary {
 public:
  /// False where the token or the id is taken already. 0 <= id.
  bool add(std::string_view token, int32_t id) {
    if (map_.find(token) != StringMap::none || has(id)) return false;
    const size_t number = map_.insert(token);
    map_.value(number) = id;
    if (static_cast<size_t>(id) >= by_id_.size()) by_id_.resize(id + 1, -1);
    by_id_[id] = static_cast<int32_t>(number);
    return true;
  }
  int32_t find(std::string_view token) const {
    const size_t number = map_.find(token);
    return number == StringMap::none ? -1 : static_cast<int32_t>(map_.value(number));
  }
  bool has(int32_t id) const { return id >= 0 && static_cast<size_t>(id) < by_id_.size() && by_id_[id] >= 0; }
  std::string_view token(int32_t id) const { return has(id) ? map_.key(by_id_[id]) : std::string_view(); }
  int32_t end_id() const { return static_cast<int32_t>(by_id_.size()); }  ///< 1 + the largest id
  size_t size() const { return map_.size(); }

 private:
  StringMap map_;
  std::vector<int32_t> by_id_;
};

}  // namespace tessera
