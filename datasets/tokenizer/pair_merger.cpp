#include "datasets/tokenizer/pair_merger.h"

#include <algorithm>

namespace tessera {

int32_t PairMerger::add_token(std::string_view token) { return static_cast<int32_t>(tokens_.insert(token)); }

int32_t PairMerger::find_token(std::string_view token) const {
  const size_t number = tokens_.find(token);
  return number == StringMap::none ? -1 : static_cast<int32_t>(number);
}

void PairMerger::add_word(const std::vector<int32_t>& symbols, int64_t count) {
  words_.push_back({symbols_.size(), static_cast<uint32_t>(symbols.size()), count});
  symbols_.insert(symbols_.end(), symbols.begin(), symbols.end());
}

/// Words are visited one after the other, so a word is noted once per pair.
void PairMerger::change(int32_t a, int32_t b, int64_t by, uint32_t word) {
  const uint64_t pair = pair_of(a, b);
  counts_[pair] += by * words_[word].count;
  if (by < 0) return;
  std::vector<uint32_t>& where = found_[pair];
  if (where.empty() || where.back() != word) where.push_back(word);
}

void PairMerger::count_pairs() {
  for (uint32_t w = 0; w < words_.size(); ++w) {
    const int32_t* symbols = &symbols_[words_[w].begin];
    for (uint32_t i = 0; i + 1 < words_[w].size; ++i) change(symbols[i], symbols[i + 1], 1, w);
  }
  queue_found();
}

void PairMerger::queue_found() {
  for (auto& [pair, where] : found_) {
    const int64_t count = counts_[pair];
    if (count <= 0) continue;
    queue_.push_back({count, pair, std::move(where)});
    std::push_heap(queue_.begin(), queue_.end());
  }
  found_.clear();
}

void PairMerger::merge_in(uint32_t word, int32_t a, int32_t b, int32_t joined) {
  int32_t* symbols = symbols_.data() + words_[word].begin;
  const uint32_t size = words_[word].size;
  uint32_t out = 0;
  for (uint32_t i = 0; i < size; ++i) {
    if (i + 1 == size || symbols[i] != a || symbols[i + 1] != b) {
      symbols[out++] = symbols[i];
      continue;
    }
    if (out > 0) {
      change(symbols[out - 1], a, -1, word);
      change(symbols[out - 1], joined, 1, word);
    }
    ++i;
    if (i + 1 < size) {
      change(b, symbols[i + 1], -1, word);
      change(joined, symbols[i + 1], 1, word);
    }
    symbols[out++] = joined;
  }
  words_[word].size = out;
}

void PairMerger::run(int64_t num_tokens, int64_t min_frequency) {
  count_pairs();
  while (static_cast<int64_t>(tokens_.size()) < num_tokens && !queue_.empty()) {
    std::pop_heap(queue_.begin(), queue_.end());
    Candidate top = std::move(queue_.back());
    queue_.pop_back();
    if (const int64_t now = counts_[top.pair]; now != top.count) {  // merges around it took some away
      top.count = now;
      queue_.push_back(std::move(top));
      std::push_heap(queue_.begin(), queue_.end());
      continue;
    }
    if (top.count < std::max<int64_t>(1, min_frequency)) break;
    const auto a = static_cast<int32_t>(top.pair >> 32), b = static_cast<int32_t>(top.pair);
    std::string_view rest = token(b);
    if (rest.starts_with(prefix_)) rest.remove_prefix(prefix_.size());
    const int32_t joined = add_token(std::string(token(a)) + std::string(rest));
    merges_.emplace_back(a, b);
    for (const uint32_t word : top.words) merge_in(word, a, b, joined);
    queue_found();
  }
}

}  // namespace tessera
