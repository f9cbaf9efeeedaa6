#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

namespace tessera {

// How well a fine-tuned model solves its task. All scores lie in [0, 1] unless said otherwise; ratios without
// a denominator are 0, also those of no examples at all. Errors: Error for truths and predictions of
// different lengths or values out of range, with the first example at fault.

struct Ratios {
  double precision = 0, recall = 0, f1 = 0;
  int64_t support = 0;  ///< how often it is true
};

/// How many are predicted, how many are true, and how many of them are both.
struct MatchCounts {
  int64_t right = 0, predicted = 0, truth = 0;

  void add(bool is_truth, bool is_predicted);
  void add(const MatchCounts& other);
  Ratios ratios() const;
};

/// One class per example, as scikit-learn scores it.
struct ClassScores {
  double accuracy = 0;  ///< also the micro F1
  double f1_macro = 0;  ///< over the classes that occur among truths or predictions
  double f1_weighted = 0;
  double f1_binary = 0;         ///< of class 1
  double matthews = 0;          ///< correlation in [-1, 1]; 0 where truths or predictions are constant
  std::vector<Ratios> classes;  ///< [num_classes]
};

/// Both [examples], values in [0, num_classes).
ClassScores score_classes(const std::vector<int64_t>& truths, const std::vector<int64_t>& predictions,
                          int64_t num_classes);

/// Counts [truth][prediction]. Errors: also Error for more than 4096 classes.
std::vector<std::vector<int64_t>> confusion_matrix(const std::vector<int64_t>& truths,
                                                   const std::vector<int64_t>& predictions,
                                                   int64_t num_classes);

/// Any number of labels per example, as scikit-learn scores it.
struct LabelSetScores {
  double accuracy = 0;  ///< share of examples with all labels right
  double f1_micro = 0, f1_macro = 0;
  double f1_samples = 0;       ///< mean over examples; 0 for one without true and predicted labels
  std::vector<Ratios> labels;  ///< [num_labels]
};

/// Both [examples][num_labels], values 0 or 1.
LabelSetScores score_label_sets(const std::vector<std::vector<int64_t>>& truths,
                                const std::vector<std::vector<int64_t>>& predictions);

/// A number per example. No examples make all of them NaN.
struct NumberScores {
  double pearson = 0;   ///< in [-1, 1]; as in scipy NaN where truths or predictions are constant
  double spearman = 0;  ///< likewise; ties have their mean rank; NaN also where an input is
  double mean_squared_error = 0, mean_absolute_error = 0;  ///< in the numbers' unit, squared or not
};

NumberScores score_numbers(const std::vector<double>& truths, const std::vector<double>& predictions);

/// Of question answering by spans, as SQuAD's scripts have it (which give percentages): means over the
/// questions.
struct SpanScores {
  double exact_match = 0, f1 = 0;
  int64_t questions = 0;
};

struct AnswerScores {
  SpanScores all, with_answer, without_answer;
};

/// Version 1 knows only questions with an answer, and gives an F1 of 0 where nothing is left of truth and
/// prediction after normalising; version 2 gives 1 there.
enum class SquadVersion { v1, v2 };

/// The best of the gold answers counts. truths[question]: its gold answers, none or only empty ones for "no
/// answer"; an empty prediction is "no answer" too. Errors: Error for a question without an answer in version
/// 1.
AnswerScores score_answers(const std::vector<std::vector<std::string>>& truths,
                           const std::vector<std::string>& predictions, SquadVersion version);

/// What SQuAD's scripts compare: in lowercase, without ASCII punctuation and the words a, an and the, with
/// single spaces.
std::string normalize_answer(const std::string& text);

/// Of entities in tagged sentences, as seqeval's default mode (conlleval's rules) has it.
struct EntityScores {
  Ratios all;  ///< micro
  std::map<std::string, Ratios> types;
  double accuracy = 0;  ///< of tags
};

/// Both [sentences][words], tags of IOB1, IOB2, IOE or IOBES: "O", "B-PER", "I" (type "_"). Errors: also
/// Error for an empty tag.
EntityScores score_entities(const std::vector<std::vector<std::string>>& truths,
                            const std::vector<std::vector<std::string>>& predictions);

/// An entity in the words [begin, end) of a sentence.
struct Entity {
  std::string type;
  int64_t sentence = 0, begin = 0, end = 0;
  bool operator<(const Entity& other) const {
    return std::tie(type, sentence, begin, end) <
           std::tie(other.type, other.sentence, other.begin, other.end);
  }
};

/// In order. Errors as score_entities().
std::vector<Entity> find_entities(const std::vector<std::vector<std::string>>& tags);

}  // namespace tessera
