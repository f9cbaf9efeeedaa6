#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/tokenizer.h"
#include "trainer/objectives/task_options.h"

namespace tessera {

/// Tokenised samples in memory: 4 bytes for each token, label and target, and 28 a sample.
class TaskExamples : public Dataset {
 public:
  /// Segments must be 0s and then 1s, or none.
  void add(const Example& example);
  int64_t size() const override { return static_cast<int64_t>(second_.size()); }
  Example get(int64_t index) const override;
  int64_t length(int64_t index) const override { return token_ends_[index + 1] - token_ends_[index]; }
  std::string note() const override { return note_; }
  /// Sets the note: the file, sizes, and what has been cut.
  void set_note(const std::string& path, const std::string& cut);

 private:
  std::vector<int32_t> tokens_, labels_, second_;  // second_: where segments turn 1; -1: nowhere
  std::vector<float> targets_;
  std::vector<int64_t> token_ends_{0}, label_ends_{0}, target_ends_{0};
  std::string note_;
};

/// Makes rows of tokens out of one or two texts: [CLS] a [SEP] b [SEP] where the tokenizer has these, with
/// segments for the second text; else the texts alone, one after the other. Counts what is cut.
class RowMaker {
 public:
  RowMaker(TokenizerPtr tokenizer, int64_t longest, Truncate truncate = Truncate::longest_first);

  Example single(std::vector<int32_t> text);
  Example pair(std::vector<int32_t> first, std::vector<int32_t> second);
  /// Tokens that a row has beside its texts.
  int64_t num_special(int texts) const { return framed_ ? texts + 1 : 0; }
  bool framed() const { return framed_; }
  const TokenizerPtr& tokenizer() const { return tokenizer_; }
  int64_t longest() const { return longest_; }
  void count_cut(int64_t tokens);
  /// "3 cut to 128 tokens, 57 tokens left out"; "" where nothing is.
  std::string note() const;

 private:
  void truncate(std::vector<int32_t>& first, std::vector<int32_t>& second);

  TokenizerPtr tokenizer_;
  int64_t longest_;
  Truncate truncate_;
  bool framed_;
  int64_t num_cut_ = 0, num_dropped_ = 0;
};

/// Lengths that two texts keep of `room` tokens, as tokenizers' truncation (truncate_encodings). A text that
/// cannot give all that is too much gives all of itself, and the other one the rest.
std::pair<size_t, size_t> truncated_lengths(size_t first, size_t second, size_t room, Truncate truncate);

}  // namespace tessera
