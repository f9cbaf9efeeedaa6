#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "datasets/tokenizer/vocabulary.h"

namespace tessera {

/// Learns byte pair encoding: joins the most frequent pair of neighbouring tokens again and again.
class PairMerger {
 public:
  /// Tokens and their ids so far; `prefix` marks tokens that continue a word ("##", or "").
  explicit PairMerger(std::string prefix) : prefix_(std::move(prefix)) {}

  int32_t add_token(std::string_view token);  ///< its id, new or not
  int32_t find_token(std::string_view token) const;
  size_t num_tokens() const { return tokens_.size(); }
  std::string_view token(int32_t id) const { return tokens_.key(id); }

  void add_word(const std::vector<int32_t>& symbols, int64_t count);
  /// Merges until there are `num_tokens` tokens, or no pair occurs `min_frequency` times.
  void run(int64_t num_tokens, int64_t min_frequency);
  const std::vector<std::pair<int32_t, int32_t>>& merges() const { return merges_; }

 private:
  struct Word {
    size_t begin;
    uint32_t size;
    int64_t count;
  };
  struct Hash {
    size_t operator()(uint64_t key) const { return (key * 0x9E3779B97F4A7C15ull) ^ (key >> 29); }
  };
  struct Candidate {
    int64_t count;
    uint64_t pair;
    std::vector<uint32_t> words;  // where the pair may stand
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };
  static uint64_t pair_of(int32_t a, int32_t b) {
    return uint64_t{static_cast<uint32_t>(a)} << 32 | static_cast<uint32_t>(b);
  }

  void count_pairs();
  void change(int32_t a, int32_t b, int64_t by, uint32_t word);
  void merge_in(uint32_t word, int32_t a, int32_t b, int32_t joined);
  void queue_found();

  std::string prefix_;
  StringMap tokens_;
  std::vector<int32_t> symbols_;  // of all words
  std::vector<Word> words_;
  std::unordered_map<uint64_t, int64_t, Hash> counts_;
  std::unordered_map<uint64_t, std::vector<uint32_t>, Hash> found_;  // pairs to be queued
  std::vector<Candidate> queue_;                                     // a heap; counts may be out of date
  std::vector<std::pair<int32_t, int32_t>> merges_;
};

}  // namespace tessera
