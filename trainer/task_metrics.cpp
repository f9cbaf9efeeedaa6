#include "trainer/task_metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "recipes/error.h"

namespace tessera {
namespace {

double ratio(double part, double whole) { return whole == 0 ? 0 : part / whole; }

void require_same_size(size_t truths, size_t predictions) {
  if (truths != predictions)
    throw Error(fmt::format("{} truths but {} predictions; they must be as many", truths, predictions));
}

void require_classes(const std::vector<int64_t>& values, const char* what, int64_t num_classes) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] < 0 || values[i] >= num_classes) {
      throw Error(fmt::format("{} {} of example {} is no class; valid: 0 to {}", what, values[i], i,
                              num_classes - 1));
    }
  }
}

std::vector<MatchCounts> count_classes(const std::vector<int64_t>& truths,
                                       const std::vector<int64_t>& predictions, int64_t num_classes) {
  std::vector<MatchCounts> counts(num_classes);
  for (size_t i = 0; i < truths.size(); ++i) {
    ++counts[truths[i]].truth;
    ++counts[predictions[i]].predicted;
    counts[truths[i]].right += truths[i] == predictions[i];
  }
  return counts;
}

/// Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient" (2004).
double matthews_correlation(const std::vector<MatchCounts>& counts, double examples) {
  double right = 0, both = 0, truths = 0, predictions = 0;
  for (const MatchCounts& c : counts) {
    const auto truth = static_cast<double>(c.truth), predicted = static_cast<double>(c.predicted);
    right += static_cast<double>(c.right);
    both += truth * predicted;
    truths += truth * truth;
    predictions += predicted * predicted;
  }
  const double square = examples * examples;
  return ratio(right * examples - both, std::sqrt((square - truths) * (square - predictions)));
}

/// Of the differences from the mean, scaled so that squares neither overflow nor vanish.
std::vector<double> centred(const std::vector<double>& values) {
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  double largest = 0;
  for (const double x : values) largest = std::max(largest, std::abs(x - mean));
  std::vector<double> result;
  result.reserve(values.size());
  for (const double x : values) result.push_back((x - mean) / largest);
  return result;
}

bool is_constant(const std::vector<double>& values) {
  return std::adjacent_find(values.begin(), values.end(), std::not_equal_to<>()) == values.end();
}

double pearson(const std::vector<double>& x, const std::vector<double>& y) {
  if (is_constant(x) || is_constant(y)) return std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> a = centred(x), b = centred(y);
  const auto dot = [](const std::vector<double>& left, const std::vector<double>& right) {
    return std::inner_product(left.begin(), left.end(), right.begin(), 0.0);
  };
  return std::clamp(dot(a, b) / (std::sqrt(dot(a, a)) * std::sqrt(dot(b, b))), -1.0, 1.0);
}

/// From 1 on; ties have the mean of their ranks.
std::vector<double> ranks_of(const std::vector<double>& values) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> ranks(values.size());
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    for (size_t i = begin; i < end; ++i) ranks[order[i]] = static_cast<double>(begin + 1 + end) / 2;
  }
  return ranks;
}

double spearman(const std::vector<double>& x, const std::vector<double>& y) {
  const auto is_nan = [](double value) { return std::isnan(value); };
  if (std::any_of(x.begin(), x.end(), is_nan) || std::any_of(y.begin(), y.end(), is_nan))
    return std::numeric_limits<double>::quiet_NaN();
  return pearson(ranks_of(x), ranks_of(y));
}

void require_labels(const std::vector<std::vector<int64_t>>& rows, const char* what, size_t num_labels) {
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].size() != num_labels) {
      throw Error(fmt::format("the {}s of example {} have {} labels, example 0 has {}", what, i,
                              rows[i].size(), num_labels));
    }
    for (const int64_t value : rows[i]) {
      if (value != 0 && value != 1)
        throw Error(fmt::format("{} {} of example {}; valid: 0 or 1 for each label", what, value, i));
    }
  }
}

}  // namespace

void MatchCounts::add(bool is_truth, bool is_predicted) {
  right += is_truth && is_predicted;
  predicted += is_predicted;
  truth += is_truth;
}

void MatchCounts::add(const MatchCounts& other) {
  right += other.right;
  predicted += other.predicted;
  truth += other.truth;
}

Ratios MatchCounts::ratios() const {
  const auto both = static_cast<double>(right), p = static_cast<double>(predicted),
             t = static_cast<double>(truth);
  return {ratio(both, p), ratio(both, t), ratio(2 * both, p + t), truth};
}

ClassScores score_classes(const std::vector<int64_t>& truths, const std::vector<int64_t>& predictions,
                          int64_t num_classes) {
  require_same_size(truths.size(), predictions.size());
  require_classes(truths, "truth", num_classes);
  require_classes(predictions, "prediction", num_classes);
  const std::vector<MatchCounts> counts = count_classes(truths, predictions, num_classes);
  const auto examples = static_cast<double>(truths.size());
  ClassScores scores;
  double present = 0;
  for (const MatchCounts& c : counts) {
    const Ratios& ratios = scores.classes.emplace_back(c.ratios());
    scores.accuracy += static_cast<double>(c.right);
    scores.f1_macro += ratios.f1;
    scores.f1_weighted += ratios.f1 * static_cast<double>(c.truth);
    present += c.truth + c.predicted > 0;
  }
  scores.accuracy = ratio(scores.accuracy, examples);
  scores.f1_macro = ratio(scores.f1_macro, present);
  scores.f1_weighted = ratio(scores.f1_weighted, examples);
  if (num_classes > 1) scores.f1_binary = scores.classes[1].f1;
  scores.matthews = matthews_correlation(counts, examples);
  return scores;
}

std::vector<std::vector<int64_t>> confusion_matrix(const std::vector<int64_t>& truths,
                                                   const std::vector<int64_t>& predictions,
                                                   int64_t num_classes) {
  constexpr int64_t most_classes = 4096;
  if (num_classes > most_classes) {
    throw Error(
        fmt::format("a confusion matrix of {} classes; valid: at most {}", num_classes, most_classes));
  }
  require_same_size(truths.size(), predictions.size());
  require_classes(truths, "truth", num_classes);
  require_classes(predictions, "prediction", num_classes);
  std::vector<std::vector<int64_t>> matrix(num_classes, std::vector<int64_t>(num_classes));
  for (size_t i = 0; i < truths.size(); ++i) ++matrix[truths[i]][predictions[i]];
  return matrix;
}

LabelSetScores score_label_sets(const std::vector<std::vector<int64_t>>& truths,
                                const std::vector<std::vector<int64_t>>& predictions) {
  require_same_size(truths.size(), predictions.size());
  const size_t num_labels = truths.empty() ? 0 : truths[0].size();
  require_labels(truths, "truth", num_labels);
  require_labels(predictions, "prediction", num_labels);
  LabelSetScores scores;
  std::vector<MatchCounts> counts(num_labels);
  for (size_t i = 0; i < truths.size(); ++i) {
    MatchCounts sample;
    for (size_t j = 0; j < num_labels; ++j) {
      sample.add(truths[i][j] == 1, predictions[i][j] == 1);
      counts[j].add(truths[i][j] == 1, predictions[i][j] == 1);
    }
    scores.f1_samples += sample.ratios().f1;
    scores.accuracy += truths[i] == predictions[i];
  }
  MatchCounts all;
  for (const MatchCounts& c : counts) {
    all.add(c);
    scores.f1_macro += scores.labels.emplace_back(c.ratios()).f1;
  }
  const auto examples = static_cast<double>(truths.size());
  scores.accuracy = ratio(scores.accuracy, examples);
  scores.f1_samples = ratio(scores.f1_samples, examples);
  scores.f1_macro = ratio(scores.f1_macro, static_cast<double>(num_labels));
  scores.f1_micro = all.ratios().f1;
  return scores;
}

NumberScores score_numbers(const std::vector<double>& truths, const std::vector<double>& predictions) {
  require_same_size(truths.size(), predictions.size());
  NumberScores scores;
  for (size_t i = 0; i < truths.size(); ++i) {
    const double difference = predictions[i] - truths[i];
    scores.mean_squared_error += difference * difference;
    scores.mean_absolute_error += std::abs(difference);
  }
  const auto examples = static_cast<double>(truths.size());
  scores.mean_squared_error /= examples;  // no examples: 0 / 0
  scores.mean_absolute_error /= examples;
  scores.pearson = pearson(truths, predictions);
  scores.spearman = spearman(truths, predictions);
  return scores;
}

}  // namespace tessera
