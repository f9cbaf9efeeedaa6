#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "datasets/records.h"
#include "recipes/error.h"
#include "trainer/objectives/objectives.h"
#include "trainer/objectives/task_batch.h"
#include "trainer/objectives/task_examples.h"
#include "trainer/task_metrics.h"

namespace tessera {
namespace {

constexpr int64_t most_choices = 1024;

/// Questions, each with its choices as rows of one store.
class ChoiceExamples : public Dataset {
 public:
  void add(const std::vector<Example>& choices, int32_t right) {
    for (const Example& choice : choices) rows.add(choice);
    ends_.push_back(rows.size());
    right_.push_back(right);
  }
  int64_t size() const override { return static_cast<int64_t>(right_.size()); }
  Example get(int64_t index) const override {
    const auto i = static_cast<size_t>(index);
    Example example;
    example.index = index;
    example.labels = {right_[i]};
    for (int64_t row = ends_[i]; row < ends_[i + 1]; ++row) example.choices.push_back(rows.get(row));
    return example;
  }
  std::string note() const override { return rows.note(); }

  TaskExamples rows;

 private:
  std::vector<int64_t> ends_{0};
  std::vector<int32_t> right_;
};

/// The right one of several continuations: a score for each, read off its first token (the last one of
/// decoders), and a softmax over them.
class MultipleChoice : public Objective {
 public:
  MultipleChoice(const MultipleChoiceOptions& options, const ObjectiveSetting& setting)
      : options_(options), setting_(setting) {}

  const std::vector<std::string>& terms() const override { return terms_; }
  ExampleKind example_kind() const override { return ExampleKind::single; }
  Heads heads() const override { return {.vocabulary = false, .task = TaskHead::sequence, .outputs = 1}; }

  DatasetPtr open(const std::string& path) const override;
  Batch collate(const std::vector<Example>& examples) const override;
  LossTerms loss(const Model& model, const at::Tensor& hidden, const Batch& batch,
                 const DropoutState& dropout) const override;

  // A row: question, right choice, predicted choice.
  at::Tensor predictions(const Batch& batch, const at::Tensor& outputs) const override;
  std::vector<std::pair<std::string, double>> metrics(const at::Tensor& predictions,
                                                      const Dataset& dataset) const override;
  std::vector<std::string> metric_names() const override { return {"accuracy"}; }
  std::vector<std::string> prediction_lines(const at::Tensor& predictions,
                                            const Dataset& dataset) const override;

 private:
  int32_t right_choice(const Records& records, int64_t i, const std::vector<std::string>& choices) const;

  MultipleChoiceOptions options_;
  ObjectiveSetting setting_;
  std::vector<std::string> terms_{"choice"};
};

int32_t MultipleChoice::right_choice(const Records& records, int64_t i,
                                     const std::vector<std::string>& choices) const {
  const std::string answer = records.text(i, options_.answer);
  if (!records.json(i, options_.answer).is_number()) {
    const auto found = std::find(choices.begin(), choices.end(), answer);
    if (found != choices.end()) return static_cast<int32_t>(found - choices.begin());
  }
  int32_t number = -1;
  const char* end = answer.data() + answer.size();
  const auto [stop, failure] = std::from_chars(answer.data(), end, number);
  if (failure == std::errc() && stop == end && number >= 0 && number < static_cast<int32_t>(choices.size())) {
    return number;
  }
  throw Error(
      fmt::format("{}: '{}' in column '{}' is none of the {} choices; valid: one of their texts, or 0 to {}",
                  records.where(i), answer, options_.answer, choices.size(), choices.size() - 1));
}

DatasetPtr MultipleChoice::open(const std::string& path) const {
  const Records records = Records::open(path);
  RowMaker rows(setting_.tokenizer, setting_.sequence_length, options_.truncate);
  auto examples = std::make_shared<ChoiceExamples>();
  for (int64_t i = 0; i < records.size(); ++i) {
    const auto texts = records.texts(i, options_.choices);
    if (texts.size() < 2 || static_cast<int64_t>(texts.size()) > most_choices) {
      throw Error(fmt::format("{}: {} choices in column '{}'; valid: 2 to {}", records.where(i), texts.size(),
                              options_.choices, most_choices));
    }
    const auto question = setting_.tokenizer->encode(records.text(i, options_.question));
    std::vector<Example> choices;
    for (const auto& text : texts) choices.push_back(rows.pair(question, setting_.tokenizer->encode(text)));
    examples->add(choices, right_choice(records, i, texts));
  }
  examples->rows.set_note(path, rows.note());
  return examples;
}

/// Labels: 1 for a right choice, 0 for the others. Targets: [questions, most choices] the rows of each, -1
/// for none. Rows are samples of their own to the dropout.
Batch MultipleChoice::collate(const std::vector<Example>& examples) const {
  std::vector<Example> rows;
  size_t most = 0;
  for (const Example& example : examples) most = std::max(most, example.choices.size());
  const auto questions = static_cast<int64_t>(examples.size());
  const at::Tensor index = at::full({questions, static_cast<int64_t>(most)}, -1, at::kFloat);
  std::vector<int64_t> labels;
  for (int64_t i = 0; i < questions; ++i) {
    const Example& example = examples[static_cast<size_t>(i)];
    for (int64_t k = 0; k < static_cast<int64_t>(example.choices.size()); ++k) {
      index[i][k] = static_cast<double>(rows.size());
      rows.push_back(example.choices[static_cast<size_t>(k)]);
      rows.back().index = example.index * most_choices + k;
      labels.push_back(example.labels.at(0) == k);
    }
  }
  Batch batch = collate_rows(rows, setting_);
  label_rows(batch, rows, std::move(labels), setting_);
  batch.targets = index;
  batch.counts = {questions};
  return batch;
}

LossTerms MultipleChoice::loss(const Model& model, const at::Tensor& hidden, const Batch& batch,
                               const DropoutState& dropout) const {
  const at::Tensor scores = widened(model.task_logits(hidden, batch, dropout)).select(1, 0);
  const at::Tensor none = batch.targets.lt(0), rows = batch.targets.clamp_min(0).to(at::kLong);
  const auto of_rows = [&](const at::Tensor& values) {
    return values.index_select(0, rows.view(-1)).view(rows.sizes());
  };
  const at::Tensor logits = of_rows(scores).masked_fill(none, -std::numeric_limits<double>::infinity());
  const at::Tensor right = of_rows(batch.labels).masked_fill(none, 0).argmax(1);
  LossTerms terms = class_loss(logits, right);
  terms.outputs = at::stack({right, terms.outputs.argmax(1)}, 1);
  return terms;
}

at::Tensor MultipleChoice::predictions(const Batch& batch, const at::Tensor& outputs) const {
  const at::Tensor first = batch.targets.select(1, 0).to(at::kLong);
  const at::Tensor questions = batch.samples.index_select(0, first).floor_divide(most_choices);
  return columns_of({questions, outputs});
}

std::vector<std::pair<std::string, double>> MultipleChoice::metrics(const at::Tensor& predictions,
                                                                    const Dataset&) const {
  if (predictions.size(0) == 0) return {};
  return {{"accuracy",
           predictions.select(1, 1).eq(predictions.select(1, 2)).to(at::kDouble).mean().item<double>()}};
}

std::vector<std::string> MultipleChoice::prediction_lines(const at::Tensor& predictions,
                                                          const Dataset&) const {
  std::vector<std::string> lines;
  for (int64_t i = 0; i < predictions.size(0); ++i) {
    const auto row = row_of(predictions, i);
    lines.push_back(nlohmann::ordered_json{{"index", static_cast<int64_t>(row[0])},
                                           {"label", static_cast<int64_t>(row[1])},
                                           {"prediction", static_cast<int64_t>(row[2])}}
                        .dump());
  }
  return lines;
}

}  // namespace

ObjectivePtr make_multiple_choice(const MultipleChoiceOptions& options, const ObjectiveSetting& setting) {
  return std::make_shared<MultipleChoice>(options, setting);
}

}  // namespace tessera
