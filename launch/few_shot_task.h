#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "datasets/records.h"
#include "recipes/error.h"
#include "recipes/fields.h"

namespace tessera {

/// The same texts for every question, or the column that holds a question's own.
struct ChoiceTexts {
  std::vector<std::string> texts;
  std::string column;  ///< "": the texts above
};
template <>
struct Value<ChoiceTexts> {
  static bool read(const Section&, ChoiceTexts&, const Rules&, Problems&);
  static Section write(const ChoiceTexts&);
  static std::string valid(const Rules&) { return "name of a column of lists, or list of texts"; }
};

/// What a choice's log-likelihood is divided by for acc_norm.
enum class ChoiceLength { characters, bytes, tokens };
inline std::vector<std::string> names_of(ChoiceLength) { return {"characters", "bytes", "tokens"}; }

/// A multiple-choice task: the file given to `tessera evaluate --few-shot`.
struct FewShotTask {
  std::string data;
  std::optional<std::string> examples;
  int64_t shots = 0;
  uint64_t seed = 1;
  std::string prompt;
  ChoiceTexts choices;
  std::string answer;
  std::string target_delimiter = " ";
  std::string separator = "\n\n";
  std::string description;
  ChoiceLength normalize = ChoiceLength::characters;

  std::shared_ptr<const Section> source;  ///< what was written: knows the places

  /// An Error about `key`, with the place where it was written.
  Error error(const std::string& key, const std::string& what) const;
};
template <class V>
void fields(FewShotTask& t, V& v) {
  v("data", t.data, "questions: JSON lines, CSV or TSV; relative to the working folder", required);
  v("examples", t.examples, "the same for the questions that are shown with their answers");
  v("shots", t.shots, "how many of them precede each question", range(0, 1000));
  v("seed", t.seed, "which ones: drawn by it and by the question's number");
  v("template", t.prompt, "prompt; {column} stands for the record's text there, {{ and }} for braces",
    required);
  v("choices", t.choices, "what may follow the prompt", required);
  v("answer", t.answer, "column with the right choice: its number from 0, or its text", required);
  v("target_delimiter", t.target_delimiter, "between prompt and choice");
  v("separator", t.separator, "after each example");
  v("description", t.description, "in front of everything, as it is");
  v("normalize", t.normalize, "what acc_norm divides a choice's log-likelihood by: its length in these");
}

/// Reads the file and what it includes; `overrides` as "shots=5". Errors: one Error with all problems.
FewShotTask read_few_shot_task(const std::string& path, const std::vector<std::string>& overrides);

/// A record as the task shows it.
struct Question {
  std::string prompt;
  std::vector<std::string> choices;
  size_t answer = 0;
};

/// The questions of a task, with the examples before each.
class Questions {
 public:
  /// Errors: Error for files that Records refuses, columns that they lack, a template that is none, and more
  /// shots than there are examples.
  explicit Questions(FewShotTask task);

  int64_t size() const { return data_.size(); }
  std::string where(int64_t i) const { return data_.where(i); }  ///< "PATH:LINE", for messages
  /// Errors: Error naming file and line for a record without choices, with an empty one or another answer.
  Question at(int64_t i) const { return question(data_, i); }
  /// What precedes question i's prompt: the description and its examples, which depend on the task's seed and
  /// on i alone; never the question itself where they come from the same file.
  std::string preceding(int64_t i) const;

 private:
  struct Part {
    std::string literal, column;  // the literal, then the column's text where there is one
  };

  void parse_template();
  void check_columns(const Records& records) const;
  void check_examples();
  Question question(const Records& records, int64_t i) const;
  size_t answer(const Records& records, int64_t i, const std::vector<std::string>& choices) const;

  FewShotTask task_;
  Records data_;
  std::optional<Records> examples_;
  bool same_file_ = false;
  std::vector<Part> template_;
};

}  // namespace tessera
