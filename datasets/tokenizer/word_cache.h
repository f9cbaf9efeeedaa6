#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

namespace tessera {

/// Remembers the ids of short words: direct-mapped, fixed size (2 MiB), one per thread and tokenizer, so that
/// nothing is locked or allocated while encoding. A word that maps to a used entry replaces it.
class WordCache {
 public:
  static constexpr size_t max_length = 24;  ///< bytes of a word
  static constexpr size_t max_ids = 9;

  struct Key {
    std::array<uint64_t, 3> words;
    uint32_t length;  ///< 0: never matches
  };
  struct alignas(64) Entry {
    std::array<uint64_t, 3> words{};
    uint8_t length = 0;
    uint8_t count = 0;
    std::array<int32_t, max_ids> ids{};
    bool holds(const Key& key) const { return length == key.length && words == key.words; }
    void fill(const Key& key, const int32_t* values, size_t size) {
      words = key.words;
      length = static_cast<uint8_t>(key.length);
      count = static_cast<uint8_t>(size);
      std::memcpy(ids.data(), values, size * sizeof(int32_t));
    }
  };

  /// The calling thread's cache of the tokenizer numbered `owner`. Keeps those of the last four tokenizers
  /// used.
  static WordCache& of_thread(uint64_t owner) {
    thread_local std::array<std::pair<uint64_t, std::unique_ptr<WordCache>>, 4> caches;
    if (caches[0].first == owner) return *caches[0].second;
    size_t i = 1;
    while (i < 3 && caches[i].first != owner) ++i;
    if (caches[i].first != owner) caches[i] = {owner, std::make_unique<WordCache>()};
    for (; i > 0; --i) std::swap(caches[i], caches[i - 1]);
    return *caches[0].second;
  }

  /// `readable` is the number of bytes that may be read from word.data(), at least its size.
  static Key key(std::string_view word, size_t readable) {
    Key result{{}, static_cast<uint32_t>(word.size())};
    if (readable < max_length) {
      std::memcpy(result.words.data(), word.data(), word.size());
      return result;
    }
    std::memcpy(result.words.data(), word.data(), max_length);
    for (size_t i = 0; i < 3; ++i) {  // keep the word's own bytes (little-endian)
      const size_t kept = word.size() > 8 * i ? word.size() - 8 * i : 0;
      if (kept < 8) result.words[i] &= (uint64_t{1} << 8 * kept) - 1;
    }
    return result;
  }

  Entry& entry(const Key& key) {
    uint64_t hash = (key.words[0] ^ key.length) * 0x9E3779B97F4A7C15ull;
    hash = (hash ^ (hash >> 32) ^ key.words[1]) * 0xBF58476D1CE4E5B9ull;
    hash = (hash ^ (hash >> 32) ^ key.words[2]) * 0x94D049BB133111EBull;
    return entries_[hash >> 49];
  }

 private:
  std::vector<Entry> entries_ = std::vector<Entry>(size_t{1} << 15);
};

}  // namespace tessera
