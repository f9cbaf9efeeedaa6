#include "datasets/nvidia_bert.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <future>
#include <map>
#include <mutex>

#include "datasets/views.h"
#include "recipes/error.h"

namespace tessera {
namespace {

constexpr int64_t block_rows = 1024;
using Block = std::vector<Example>;
using BlockPtr = std::shared_ptr<const Block>;
using Rows = std::vector<std::vector<int64_t>>;

/// Rows [first, first + count) of an array of any of the three shapes that occur: [N], [N, S], N rows of
/// varying length.
Rows read_rows(const hdf5::File& file, const std::string& name, int64_t first, int64_t count) {
  const auto info = file.info(name);
  if (info.variable_length) return file.read_variable_rows(name, first, count);
  std::vector<int64_t> offset{first}, shape{count};
  if (info.shape.size() == 2) {
    offset.push_back(0);
    shape.push_back(info.shape[1]);
  }
  const int64_t width = info.shape.size() == 2 ? info.shape[1] : 1;
  std::vector<int64_t> values(count * width);
  file.read_slice(name, hdf5::Type::i64, offset, shape, values.data());
  Rows rows;
  for (int64_t i = 0; i < count; ++i)
    rows.emplace_back(values.begin() + i * width, values.begin() + (i + 1) * width);
  return rows;
}

std::vector<int32_t> narrow(const std::vector<int64_t>& values, size_t count) {
  return {values.begin(), values.begin() + static_cast<int64_t>(std::min(count, values.size()))};
}

/// The blocks of all files last used, within a budget of memory; threads that want the same block wait for
/// one read.
class BlockCache {
 public:
  BlockCache(int64_t capacity, std::function<BlockPtr(int64_t)> load)
      : capacity_(capacity), load_(std::move(load)) {}

  BlockPtr get(int64_t number) {
    std::promise<BlockPtr> promise;
    std::shared_future<BlockPtr> future;
    bool mine = false;
    {
      std::lock_guard lock(mutex_);
      auto [entry, added] = entries_.try_emplace(number);
      if (added) entry->second.block = promise.get_future().share();
      entry->second.used = ++clock_;
      future = entry->second.block;
      mine = added;
      if (added && static_cast<int64_t>(entries_.size()) > capacity_) forget_oldest();
    }
    if (mine) read(number, promise);
    return future.get();
  }

 private:
  struct Entry {
    std::shared_future<BlockPtr> block;
    uint64_t used = 0;
  };
  void read(int64_t number, std::promise<BlockPtr>& promise) {
    try {
      promise.set_value(load_(number));
    } catch (...) {
      promise.set_exception(std::current_exception());
      std::lock_guard lock(mutex_);
      entries_.erase(number);
    }
  }
  void forget_oldest() {
    entries_.erase(std::min_element(entries_.begin(), entries_.end(), [](const auto& a, const auto& b) {
      return a.second.used < b.second.used;
    }));
  }

  const int64_t capacity_;
  std::function<BlockPtr(int64_t)> load_;
  std::mutex mutex_;
  std::map<int64_t, Entry> entries_;
  uint64_t clock_ = 0;
};

class NvidiaBert : public Dataset {
 public:
  NvidiaBert(const std::vector<std::string>& paths, int64_t sequence_length, int64_t cache_bytes)
      : paths_(paths),
        sequence_length_(sequence_length),
        cache_(std::max<int64_t>(1, cache_bytes / (block_rows * (10 * sequence_length + 200))),
               [this](int64_t number) { return load(number); }) {
    for (const auto& path : paths) open(path);
  }

  int64_t size() const override { return first_rows_.back(); }

  Example get(int64_t index) const override {
    const auto file =
        std::upper_bound(first_rows_.begin(), first_rows_.end(), index) - first_rows_.begin() - 1;
    const int64_t row = index - first_rows_[file];
    Example example = (*cache_.get(first_blocks_[file] + row / block_rows))[row % block_rows];
    example.index = index;
    return example;
  }

 private:
  /// Checks the layout of a file and counts its rows.
  void open(const std::string& path) {
    const auto file = hdf5::File::open(path);
    if (!is_nvidia_bert(file))
      throw Error(fmt::format("{}: lacks arrays of NVIDIA's BERT pre-training format", path));
    const auto shape = file.info("/input_ids").shape;
    const int64_t stored = nvidia_bert_sequence_length(file);
    if (stored != 0 && stored != sequence_length_) {
      throw Error(fmt::format(
          "{}: holds sequences of {} tokens, but sequence_length is {}; valid: sequence_length: {}", path,
          stored, sequence_length_, stored));
    }
    for (const char* name :
         {"/segment_ids", "/masked_lm_positions", "/masked_lm_ids", "/next_sentence_labels"}) {
      const auto other = file.info(name).shape;
      if (other.empty() || other[0] != shape.at(0)) {
        throw Error(fmt::format("{}: {} and /input_ids differ in their number of rows", path, name));
      }
    }
    first_rows_.push_back(first_rows_.back() + shape[0]);
    first_blocks_.push_back(first_blocks_.back() + (shape[0] + block_rows - 1) / block_rows);
  }

  BlockPtr load(int64_t number) const {
    const auto which =
        std::upper_bound(first_blocks_.begin(), first_blocks_.end(), number) - first_blocks_.begin() - 1;
    const int64_t first = (number - first_blocks_[which]) * block_rows;
    const int64_t count = std::min(block_rows, first_rows_[which + 1] - first_rows_[which] - first);
    const auto file = hdf5::File::open(paths_[which]);
    const auto rows = [&](const char* name) { return read_rows(file, name, first, count); };
    const Rows ids = rows("/input_ids"), segments = rows("/segment_ids"),
               positions = rows("/masked_lm_positions");
    const Rows labels = rows("/masked_lm_ids"), next = rows("/next_sentence_labels");
    const Rows mask = file.exists("/input_mask") ? rows("/input_mask") : Rows(count);
    auto block = std::make_shared<Block>(count);
    for (int64_t i = 0; i < count; ++i) {
      Example& example = (*block)[i];
      const auto length =
          mask[i].empty() ? ids[i].size() : static_cast<size_t>(std::ranges::count(mask[i], 1));
      // Predictions are filled up with zeros; position 0 is [CLS], which is never masked.
      const auto predictions = static_cast<size_t>(std::ranges::find(positions[i], 0) - positions[i].begin());
      example.tokens = narrow(ids[i], length);
      example.segments = narrow(segments[i], length);
      example.masked_positions = narrow(positions[i], predictions);
      example.masked_ids = narrow(labels[i], predictions);
      example.next_sentence = next[i].empty() ? -1 : static_cast<int>(next[i][0]);
      check(example, paths_[which], first + i);
    }
    return block;
  }

  void check(const Example& example, const std::string& path, int64_t row) const {
    const auto length = static_cast<int32_t>(example.tokens.size());
    const auto outside = [](const auto& values, int32_t end) {
      return std::ranges::any_of(values, [end](int32_t value) { return value < 0 || value >= end; });
    };
    const char* wrong =
        length == 0 || length > sequence_length_           ? "a length of 0 or above sequence_length"
        : example.segments.size() != example.tokens.size() ? "segment_ids of another length"
        : outside(example.segments, 2)                     ? "segment_ids other than 0 and 1"
        : outside(example.tokens, INT32_MAX)               ? "negative input_ids"
        : outside(example.masked_positions, length)        ? "masked_lm_positions outside the sequence"
        : outside(example.masked_ids, INT32_MAX)           ? "negative masked_lm_ids"
        : example.masked_ids.size() != example.masked_positions.size() ? "masked_lm_ids of another length"
        : example.next_sentence < 0 || example.next_sentence > 1 ? "a next_sentence_label other than 0 and 1"
                                                                 : nullptr;
    if (wrong) throw Error(fmt::format("{}: row {} has {}; is the file damaged?", path, row, wrong));
  }

  std::vector<std::string> paths_;
  int64_t sequence_length_;
  std::vector<int64_t> first_rows_{0}, first_blocks_{0};
  mutable BlockCache cache_;
};

}  // namespace

bool is_nvidia_bert(const hdf5::File& file) {
  const auto exists = [&](const char* name) { return file.exists(name); };
  const bool fixed =
      exists("/input_ids") && (file.info("/input_ids").variable_length || exists("/input_mask"));
  return fixed && exists("/segment_ids") && exists("/masked_lm_positions") && exists("/masked_lm_ids") &&
         exists("/next_sentence_labels");
}

int64_t nvidia_bert_sequence_length(const hdf5::File& file) {
  const auto info = file.info("/input_ids");
  return info.variable_length || info.shape.size() < 2 ? 0 : info.shape[1];
}

DatasetPtr nvidia_bert(const std::vector<std::string>& paths, int64_t sequence_length, int64_t cache_bytes) {
  return std::make_shared<NvidiaBert>(paths, sequence_length, cache_bytes);
}

}  // namespace tessera
