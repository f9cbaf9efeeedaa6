#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "recipes/error.h"
#include "trainer/objectives/answer_windows.h"
#include "trainer/objectives/objectives.h"
#include "trainer/objectives/task_batch.h"
#include "trainer/task_metrics.h"

namespace tessera {
namespace {

/// What a batch's targets hold for each sample.
enum Target { answer_first, answer_last, row_length, context_begin, context_end, num_targets };

struct Span {
  int64_t first = 0, last = 0;
  double score = -std::numeric_limits<double>::infinity();
};

/// The best first <= last in [begin, end), at most `longest` tokens.
Span best_span(const at::Tensor& scores, int64_t begin, int64_t end, int64_t longest) {
  Span best{begin, begin};
  const auto view = scores.accessor<double, 2>();  // NOLINT
  for (int64_t first = begin; first < end; ++first) {
    for (int64_t last = first; last < std::min(end, first + longest); ++last) {
      const double score = view[first][0] + view[last][1];
      if (score > best.score) best = {first, last, score};
    }
  }
  return best;
}

const AnswerWindows& windows_in(const Dataset& dataset) {
  const auto* windows = dynamic_cast<const AnswerWindows*>(&dataset);
  if (!windows) throw std::logic_error("question answering needs the dataset that it opened");
  return *windows;
}

/// The span of the context that answers a question: a softmax over a row's tokens for its first token and one
/// for its last.
class QuestionAnswering : public Objective {
 public:
  QuestionAnswering(const QuestionAnsweringOptions& options, const ObjectiveSetting& setting)
      : options_(options), setting_(setting) {}

  const std::vector<std::string>& terms() const override { return terms_; }
  ExampleKind example_kind() const override { return ExampleKind::single; }
  Heads heads() const override { return {.vocabulary = false, .task = TaskHead::span, .outputs = 2}; }

  DatasetPtr open(const std::string& path) const override {
    return std::make_shared<AnswerWindows>(
        path, options_, RowMaker(setting_.tokenizer, setting_.sequence_length, Truncate::only_second));
  }
  Batch collate(const std::vector<Example>& examples) const override;
  LossTerms loss(const Model& model, const at::Tensor& hidden, const Batch& batch,
                 const DropoutState& dropout) const override;

  // A row: window, first and last token and score of its best answer, score of there being none.
  at::Tensor predictions(const Batch& batch, const at::Tensor& outputs) const override;
  std::vector<std::pair<std::string, double>> metrics(const at::Tensor& predictions,
                                                      const Dataset& dataset) const override;
  std::vector<std::string> metric_names() const override {
    return {"exact_match", "f1", "has_answer_exact_match", "has_answer_f1", "no_answer_exact_match"};
  }
  std::vector<std::string> prediction_lines(const at::Tensor& predictions,
                                            const Dataset& dataset) const override;

 private:
  struct Answered {
    int64_t question;
    std::string text;
    double score, null_score;
  };
  std::vector<Answered> answer(const at::Tensor& predictions, const AnswerWindows& windows) const;

  QuestionAnsweringOptions options_;
  ObjectiveSetting setting_;
  std::vector<std::string> terms_{"span"};
};

Batch QuestionAnswering::collate(const std::vector<Example>& examples) const {
  Batch batch = collate_rows(examples, setting_);
  const auto count = static_cast<int64_t>(examples.size());
  batch.targets = at::empty({count, num_targets}, at::kFloat);
  auto* target = batch.targets.data_ptr<float>();
  for (const Example& example : examples) {
    const auto& labels = example.labels;
    const auto length = static_cast<float>(example.tokens.size());
    for (const float value : {static_cast<float>(labels.at(0)), static_cast<float>(labels.at(1)), length,
                              static_cast<float>(labels.at(2)), static_cast<float>(labels.at(3))}) {
      *target++ = value;
    }
  }
  batch.counts = {count};
  return batch;
}

/// As transformers' ForQuestionAnsweringLoss, but that padding has no share in the softmax: how much of it
/// there is must not show.
LossTerms QuestionAnswering::loss(const Model& model, const at::Tensor& hidden, const Batch& batch,
                                  const DropoutState& dropout) const {
  const at::Tensor logits = widened(model.task_logits(hidden, batch, dropout));
  const at::Tensor scores = logits.view({batch.batch(), batch.sequence(), 2}).transpose(1, 2);
  const auto target = [&](int64_t column) { return batch.targets.select(1, column); };
  const at::Tensor beyond = at::arange(batch.sequence(), batch.tokens.options())
                                .unsqueeze(0)
                                .ge(target(row_length).unsqueeze(1))
                                .unsqueeze(1);
  const at::Tensor masked = scores.masked_fill(beyond, -std::numeric_limits<double>::infinity());
  const at::Tensor truths = batch.targets.slice(1, answer_first, answer_last + 1).to(at::kLong);
  // [batch, 2, sequence] as [batch * 2, sequence]: first and last tokens are rows alike.
  const at::Tensor flat = masked.reshape({2 * batch.batch(), batch.sequence()});
  const at::Tensor sum = at::cross_entropy_loss(flat, truths.reshape(-1), {}, at::Reduction::Sum) / 2;
  const at::Tensor correct = masked.detach().argmax(2).eq(truths).all(1).sum().to(at::kFloat);
  return {sum.unsqueeze(0), correct.unsqueeze(0), scores.detach().transpose(1, 2)};
}

at::Tensor QuestionAnswering::predictions(const Batch& batch, const at::Tensor& outputs) const {
  const at::Tensor scores = outputs.to(at::kCPU, at::kDouble).contiguous();
  at::Tensor rows = at::empty({batch.batch(), 5}, at::kDouble);
  const auto target = batch.targets.accessor<float, 2>();  // NOLINT
  auto* row = rows.data_ptr<double>();
  for (int64_t i = 0; i < batch.batch(); ++i) {
    const Span best = best_span(scores[i], static_cast<int64_t>(target[i][context_begin]),
                                static_cast<int64_t>(target[i][context_end]), options_.max_answer_length);
    const double none = scores[i][0].sum().item<double>();
    for (const double value :
         {static_cast<double>(batch.samples[i].item<int64_t>()), static_cast<double>(best.first),
          static_cast<double>(best.last), best.score, none}) {
      *row++ = value;
    }
  }
  return rows;
}

/// The best span of all windows, unless the data has questions without answer and `no answer` scores higher
/// in each window.
std::vector<QuestionAnswering::Answered> QuestionAnswering::answer(const at::Tensor& predictions,
                                                                   const AnswerWindows& windows) const {
  std::vector<Answered> all;
  std::vector<std::vector<double>> best;
  for (int64_t i = 0; i < predictions.size(0); ++i) {
    const auto row = row_of(predictions, i);
    const int64_t question = windows.question_of(static_cast<int64_t>(row[0]));
    if (all.empty() || all.back().question != question) {
      all.push_back({question, "", row[3], row[4]});
      best.push_back(row);
      continue;
    }
    all.back().null_score = std::min(all.back().null_score, row[4]);
    if (row[3] <= all.back().score) continue;
    all.back().score = row[3];
    best.back() = row;
  }
  for (size_t i = 0; i < all.size(); ++i) {
    Answered& found = all[i];
    const auto at = [&](size_t column) { return static_cast<int64_t>(best[i][column]); };
    const bool none = windows.knows_no_answer() && found.null_score - found.score > options_.null_threshold;
    if (none || !std::isfinite(found.score)) continue;
    found.text = AnswerWindows::Context(windows, found.question).text(at(0), at(1), at(2));
  }
  return all;
}

std::vector<std::pair<std::string, double>> QuestionAnswering::metrics(const at::Tensor& predictions,
                                                                       const Dataset& dataset) const {
  std::vector<std::vector<std::string>> truths;
  std::vector<std::string> texts;
  const AnswerWindows& windows = windows_in(dataset);
  for (const Answered& answered : answer(predictions, windows)) {
    truths.push_back(windows.answers(answered.question));
    texts.push_back(answered.text);
  }
  const AnswerScores scores =
      score_answers(truths, texts, windows.knows_no_answer() ? SquadVersion::v2 : SquadVersion::v1);
  return {{"exact_match", scores.all.exact_match},
          {"f1", scores.all.f1},
          {"has_answer_exact_match", scores.with_answer.exact_match},
          {"has_answer_f1", scores.with_answer.f1},
          {"no_answer_exact_match", scores.without_answer.exact_match}};
}

std::vector<std::string> QuestionAnswering::prediction_lines(const at::Tensor& predictions,
                                                             const Dataset& dataset) const {
  std::vector<std::string> lines;
  const AnswerWindows& windows = windows_in(dataset);
  for (const Answered& answered : answer(predictions, windows)) {
    lines.push_back(nlohmann::ordered_json{{"index", answered.question},
                                           {"label", windows.answers(answered.question)},
                                           {"prediction", answered.text},
                                           {"score", answered.score},
                                           {"null_score", answered.null_score}}
                        .dump());
  }
  return lines;
}

}  // namespace

ObjectivePtr make_question_answering(const QuestionAnsweringOptions& options,
                                     const ObjectiveSetting& setting) {
  return std::make_shared<QuestionAnswering>(options, setting);
}

}  // namespace tessera
