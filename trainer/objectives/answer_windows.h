#pragma once
#include <string>
#include <utility>
#include <vector>

#include "datasets/records.h"
#include "trainer/objectives/task_examples.h"

namespace tessera {

/// Questions on contexts, in windows of [CLS] question [SEP] part of the context [SEP]; the windows of a
/// question share `stride` tokens with the next. Windows are the samples.
/// An example's labels: first and last token of the answer (both 0, the first token, where the window has
/// none), and the tokens [begin, end) that are context.
class AnswerWindows : public Dataset {
 public:
  /// Errors: Error naming file and line for answers that lie outside their context.
  AnswerWindows(const std::string& path, const QuestionAnsweringOptions& options, RowMaker rows);

  int64_t size() const override { return windows_.size(); }
  Example get(int64_t index) const override { return windows_.get(index); }
  int64_t length(int64_t index) const override { return windows_.length(index); }
  std::string note() const override { return windows_.note(); }

  int64_t question_of(int64_t window) const { return places_[static_cast<size_t>(window)].question; }
  /// The texts that are right; none: there is no answer.
  std::vector<std::string> answers(int64_t question) const;
  /// Whether some question has no answer (SQuAD's second version).
  bool knows_no_answer() const { return knows_no_answer_; }
  /// A question's context, and the text of tokens in it.
  class Context {
   public:
    Context(const AnswerWindows& windows, int64_t question);
    /// Of the tokens first to last of a window's row.
    std::string text(int64_t window, int64_t first, int64_t last) const;

   private:
    const AnswerWindows& windows_;
    std::string text_;
    std::vector<std::pair<int64_t, int64_t>> offsets_;  // of tokens, in characters
  };

 private:
  struct Place {
    int32_t question;
    int32_t shift;  // from a token's place in the row to that in the context
  };
  struct Answer {
    int64_t begin = -1, end = -1;  // in characters
  };
  Answer answer_of(int64_t question, const std::string& context) const;
  void add_windows(int64_t question, RowMaker& rows);

  Records records_;
  QuestionAnsweringOptions options_;
  TokenizerPtr tokenizer_;
  TaskExamples windows_;
  std::vector<Place> places_;
  int64_t num_misplaced_ = 0;
  bool knows_no_answer_ = false;
};

}  // namespace tessera
