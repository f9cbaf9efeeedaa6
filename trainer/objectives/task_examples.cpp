#include "trainer/objectives/task_examples.h"

#include <fmt/format.h>

#include <algorithm>

#include "recipes/error.h"

namespace tessera {

void TaskExamples::add(const Example& example) {
  const auto append = [](auto& all, std::vector<int64_t>& ends, const auto& more) {
    all.insert(all.end(), more.begin(), more.end());
    ends.push_back(static_cast<int64_t>(all.size()));
  };
  append(tokens_, token_ends_, example.tokens);
  append(labels_, label_ends_, example.labels);
  append(targets_, target_ends_, example.targets);
  const auto one = std::find(example.segments.begin(), example.segments.end(), 1);
  second_.push_back(one == example.segments.end() ? -1
                                                  : static_cast<int32_t>(one - example.segments.begin()));
}

Example TaskExamples::get(int64_t index) const {
  const auto cut = [index](const auto& all, const std::vector<int64_t>& ends) {
    const auto i = static_cast<size_t>(index);
    return std::decay_t<decltype(all)>(all.begin() + ends[i], all.begin() + ends[i + 1]);
  };
  Example example;
  example.index = index;
  example.tokens = cut(tokens_, token_ends_);
  example.labels = cut(labels_, label_ends_);
  example.targets = cut(targets_, target_ends_);
  const int32_t second = second_[static_cast<size_t>(index)];
  if (second < 0) return example;
  example.segments.assign(example.tokens.size(), 0);
  std::fill(example.segments.begin() + second, example.segments.end(), 1);
  return example;
}

void TaskExamples::set_note(const std::string& path, const std::string& cut) {
  const size_t bytes = 4 * (tokens_.size() + labels_.size() + targets_.size()) + 28 * second_.size();
  note_ = fmt::format("{}: {} rows, {} tokens, {:.1f} MB{}{}", path, size(), tokens_.size(),
                      static_cast<double>(bytes) / 1e6, cut.empty() ? "" : "; ", cut);
}

RowMaker::RowMaker(TokenizerPtr tokenizer, int64_t longest, Truncate truncate)
    : tokenizer_(std::move(tokenizer)),
      longest_(longest),
      truncate_(truncate),
      framed_(tokenizer_->special().cls >= 0 && tokenizer_->special().sep >= 0) {
  if (longest_ > num_special(2)) return;
  throw Error(fmt::format("data.sequence_length: {} tokens leave no room for text; valid: at least {}",
                          longest_, num_special(2) + 1));
}

Example RowMaker::single(std::vector<int32_t> text) {
  const auto room = static_cast<size_t>(longest_ - num_special(1));
  if (text.size() > room) {
    count_cut(static_cast<int64_t>(text.size() - room));
    text.resize(room);
  }
  const SpecialTokens& special = tokenizer_->special();
  Example row;
  if (framed_) row.tokens.push_back(special.cls);
  row.tokens.insert(row.tokens.end(), text.begin(), text.end());
  if (framed_) row.tokens.push_back(special.sep);
  // A model cannot look at nothing.
  if (row.tokens.empty()) row.tokens.push_back(std::max({0, special.end, special.pad}));
  return row;
}

Example RowMaker::pair(std::vector<int32_t> first, std::vector<int32_t> second) {
  truncate(first, second);
  const SpecialTokens& special = tokenizer_->special();
  Example row;
  if (framed_) row.tokens.push_back(special.cls);
  row.tokens.insert(row.tokens.end(), first.begin(), first.end());
  if (framed_) row.tokens.push_back(special.sep);
  const size_t begin = row.tokens.size();
  row.tokens.insert(row.tokens.end(), second.begin(), second.end());
  if (framed_) {
    row.tokens.push_back(special.sep);
    row.segments.assign(begin, 0);
    row.segments.resize(row.tokens.size(), 1);
  }
  if (row.tokens.empty()) row.tokens.push_back(std::max({0, special.end, special.pad}));
  return row;
}

void RowMaker::truncate(std::vector<int32_t>& first, std::vector<int32_t>& second) {
  const auto room = static_cast<size_t>(longest_ - num_special(2));
  const size_t all = first.size() + second.size();
  if (all <= room) return;
  count_cut(static_cast<int64_t>(all - room));
  const auto [a, b] = truncated_lengths(first.size(), second.size(), room, truncate_);
  first.resize(a);
  second.resize(b);
}

void RowMaker::count_cut(int64_t tokens) {
  ++num_cut_;
  num_dropped_ += tokens;
}

std::string RowMaker::note() const {
  if (num_cut_ == 0) return {};
  return fmt::format("{} cut to {} tokens, {} tokens left out", num_cut_, longest_, num_dropped_);
}

std::pair<size_t, size_t> truncated_lengths(size_t first, size_t second, size_t room, Truncate truncate) {
  if (first + second <= room) return {first, second};
  const size_t excess = first + second - room;
  if (truncate == Truncate::only_first) {
    const size_t kept = first - std::min(first, excess);
    return {kept, std::min(second, room - kept)};
  }
  if (truncate == Truncate::only_second) {
    const size_t kept = second - std::min(second, excess);
    return {std::min(first, room - kept), kept};
  }
  size_t shorter = std::min(first, second);
  size_t longer = shorter > room ? shorter : std::max(shorter, room - shorter);
  if (shorter + longer > room) {
    shorter = room / 2;
    longer = shorter + room % 2;
  }
  return first > second ? std::pair{longer, shorter} : std::pair{shorter, longer};
}

}  // namespace tessera
