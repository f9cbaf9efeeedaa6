#include <ATen/ATen.h>
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "datasets/records.h"
#include "recipes/error.h"
#include "trainer/objectives/label_names.h"
#include "trainer/objectives/objectives.h"
#include "trainer/objectives/padding.h"
#include "trainer/objectives/task_batch.h"
#include "trainer/objectives/task_examples.h"
#include "trainer/task_metrics.h"

namespace tessera {
namespace {

/// A list, or one value for a list of one.
std::vector<std::string> values_of(const Records& records, int64_t i, const std::string& column) {
  const auto value = records.json(i, column);
  const bool one_word =
      value.is_string() && value.get_ref<const std::string&>().find_first_of("[ ") == std::string::npos;
  if (value.is_number() || value.is_boolean() || one_word) return {records.text(i, column)};
  return records.texts(i, column);
}

/// Of several outputs the mean.
std::vector<std::pair<std::string, double>> number_metrics(const at::Tensor& truths,
                                                           const at::Tensor& outputs) {
  std::vector<std::pair<std::string, double>> mean{
      {"pearson", 0}, {"spearman", 0}, {"mean_squared_error", 0}, {"mean_absolute_error", 0}};
  const int64_t count = outputs.size(1);
  for (int64_t k = 0; k < count; ++k) {
    const NumberScores scores = score_numbers(row_of(truths.t(), k), row_of(outputs.t(), k));
    const double values[] = {scores.pearson, scores.spearman, scores.mean_squared_error,
                             scores.mean_absolute_error};
    for (size_t i = 0; i < mean.size(); ++i) mean[i].second += values[i] / static_cast<double>(count);
  }
  return mean;
}

/// One class, several, or numbers for a text or a pair of texts: read off the first token of encoders, and
/// off the last one of decoders, which alone has seen all of it.
class SequenceClassification : public Objective {
 public:
  SequenceClassification(const SequenceClassificationOptions& options, const ObjectiveSetting& setting)
      : options_(options), setting_(setting), labels_(find_labels()) {}

  const std::vector<std::string>& terms() const override { return terms_; }
  ExampleKind example_kind() const override { return ExampleKind::single; }
  Heads heads() const override {
    return {.vocabulary = false, .task = TaskHead::sequence, .outputs = labels_.size()};
  }
  void settle(Choice& section) const override {
    section.get_if<SequenceClassificationOptions>()->labels = labels_.names();
  }

  DatasetPtr open(const std::string& path) const override;
  Batch collate(const std::vector<Example>& examples) const override;
  LossTerms loss(const Model& model, const at::Tensor& hidden, const Batch& batch,
                 const DropoutState& dropout) const override;

  // A row: sample, truths (one class, or a value per output), outputs.
  at::Tensor predictions(const Batch& batch, const at::Tensor& outputs) const override;
  std::vector<std::pair<std::string, double>> metrics(const at::Tensor& predictions,
                                                      const Dataset& dataset) const override;
  std::vector<std::string> metric_names() const override;
  std::vector<std::string> prediction_lines(const at::Tensor& predictions,
                                            const Dataset& dataset) const override;
  Confusion confusion(const at::Tensor& predictions) const override;

 private:
  bool one_class() const { return options_.problem == Problem::single_label; }
  int64_t num_truths() const { return one_class() ? 1 : labels_.size(); }
  LabelNames find_labels() const;
  void add_targets(const Records& records, int64_t i, Example& example) const;
  at::Tensor outputs_of(const at::Tensor& predictions) const {
    return predictions.slice(1, 1 + num_truths(), 1 + num_truths() + labels_.size());
  }

  SequenceClassificationOptions options_;
  ObjectiveSetting setting_;
  LabelNames labels_;
  std::vector<std::string> terms_{"label"};
};

LabelNames SequenceClassification::find_labels() const {
  if (!options_.labels.empty()) return LabelNames(options_.labels);
  std::set<std::string> found;
  size_t outputs = 0;
  for (const std::string& path : setting_.training) {
    const Records records = Records::open(path);
    for (int64_t i = 0; i < records.size(); ++i) {
      if (one_class()) {
        found.insert(records.text(i, options_.label));
        continue;
      }
      const auto values = values_of(records, i, options_.label);
      outputs = std::max(outputs, values.size());
      found.insert(values.begin(), values.end());
    }
  }
  if (options_.problem != Problem::regression) {
    if (found.size() == 1 && one_class()) {
      throw Error(fmt::format("{}: '{}' is the only label in column '{}'; valid: at least two",
                              setting_.training.front(), *found.begin(), options_.label));
    }
    if (!found.empty()) return LabelNames::of(found);
  }
  std::vector<std::string> names;
  for (size_t i = 0; i < std::max<size_t>(outputs, one_class() ? 2 : 1); ++i) {
    names.push_back(fmt::format("LABEL_{}", i));
  }
  return LabelNames(names);
}

void SequenceClassification::add_targets(const Records& records, int64_t i, Example& example) const {
  if (one_class()) {
    example.labels = {labels_.number(records.text(i, options_.label), records.where(i))};
    return;
  }
  const auto values = values_of(records, i, options_.label);
  example.targets.assign(static_cast<size_t>(labels_.size()), 0);
  if (options_.problem == Problem::multi_label) {
    for (const auto& value : values)
      example.targets[static_cast<size_t>(labels_.number(value, records.where(i)))] = 1;
    return;
  }
  if (values.size() != example.targets.size()) {
    throw Error(fmt::format("{}: {} numbers in column '{}'; valid: {}, one for each output", records.where(i),
                            values.size(), options_.label, example.targets.size()));
  }
  for (size_t k = 0; k < values.size(); ++k) {
    char* end = nullptr;
    example.targets[k] = std::strtof(values[k].c_str(), &end);
    if (!values[k].empty() && *end == 0 && std::isfinite(example.targets[k])) continue;
    throw Error(
        fmt::format("{}: '{}' in column '{}' is no number", records.where(i), values[k], options_.label));
  }
}

DatasetPtr SequenceClassification::open(const std::string& path) const {
  const Records records = Records::open(path);
  RowMaker rows(setting_.tokenizer, setting_.sequence_length, options_.truncate);
  auto examples = std::make_shared<TaskExamples>();
  for (int64_t i = 0; i < records.size(); ++i) {
    std::vector<int32_t> first = setting_.tokenizer->encode(records.text(i, options_.text));
    Example example =
        options_.text_pair
            ? rows.pair(std::move(first), setting_.tokenizer->encode(records.text(i, *options_.text_pair)))
            : rows.single(std::move(first));
    add_targets(records, i, example);
    examples->add(example);
  }
  examples->set_note(path, rows.note());
  return examples;
}

Batch SequenceClassification::collate(const std::vector<Example>& examples) const {
  Batch batch = collate_rows(examples, setting_);
  std::vector<int64_t> labels;
  std::vector<at::Tensor> targets;
  for (const Example& example : examples) {
    labels.push_back(one_class() ? example.labels.at(0) : 0);
    if (!one_class()) targets.push_back(at::tensor(example.targets));
  }
  label_rows(batch, examples, std::move(labels), setting_);
  if (!one_class()) batch.targets = with_rows(at::stack(targets), batch.labels.size(0));
  return batch;
}

LossTerms SequenceClassification::loss(const Model& model, const at::Tensor& hidden, const Batch& batch,
                                       const DropoutState& dropout) const {
  const at::Tensor logits = model.task_logits(hidden, batch, dropout);
  if (one_class()) return class_loss(logits, batch.labels);
  const at::Tensor wide = widened(logits), counted = batch.labels.ge(0);
  const bool classes = options_.problem == Problem::multi_label;
  const at::Tensor each =
      classes ? at::binary_cross_entropy_with_logits(wide, batch.targets, {}, {}, at::Reduction::None)
              : (wide - batch.targets).square();
  const at::Tensor sum = each.mean(1).mul(counted).sum();
  const at::Tensor right = wide.detach().gt(0).eq(batch.targets.gt(0.5)).all(1).logical_and(counted).sum();
  const at::Tensor correct = classes ? right.to(at::kFloat) : at::full_like(sum.detach(), NAN);
  return {sum.unsqueeze(0), correct.unsqueeze(0), wide.detach()};
}

at::Tensor SequenceClassification::predictions(const Batch& batch, const at::Tensor& outputs) const {
  const LabelledRows labelled = labelled_rows(batch);
  const at::Tensor truths = one_class() ? batch.labels : batch.targets;
  return columns_of({labelled.samples, truths.index_select(0, labelled.rows),
                     outputs.to(at::kCPU).index_select(0, labelled.rows)});
}

std::vector<std::string> SequenceClassification::metric_names() const {
  if (options_.problem == Problem::multi_label) return {"accuracy", "f1_micro", "f1_macro", "f1_samples"};
  if (options_.problem == Problem::regression) {
    return {"pearson", "spearman", "mean_squared_error", "mean_absolute_error"};
  }
  std::vector<std::string> names{"accuracy", "f1_macro", "f1_micro", "f1_weighted", "matthews"};
  if (labels_.size() == 2) names.emplace_back("f1");
  return names;
}

std::vector<std::pair<std::string, double>> SequenceClassification::metrics(const at::Tensor& predictions,
                                                                            const Dataset&) const {
  if (predictions.size(0) == 0) return {};
  const at::Tensor outputs = outputs_of(predictions);
  const at::Tensor truths = predictions.slice(1, 1, 1 + num_truths());
  if (options_.problem == Problem::regression) return number_metrics(truths, outputs);
  if (one_class()) {
    const ClassScores scores =
        score_classes(whole_column(predictions, 1), whole_column(outputs.argmax(1, true), 0), labels_.size());
    std::vector<std::pair<std::string, double>> values{{"accuracy", scores.accuracy},
                                                       {"f1_macro", scores.f1_macro},
                                                       {"f1_micro", scores.accuracy},
                                                       {"f1_weighted", scores.f1_weighted},
                                                       {"matthews", scores.matthews}};
    if (labels_.size() == 2) values.emplace_back("f1", scores.f1_binary);
    return values;
  }
  std::vector<std::vector<int64_t>> true_sets, predicted_sets;
  for (int64_t i = 0; i < predictions.size(0); ++i) {
    true_sets.push_back(whole_column(truths[i].unsqueeze(1), 0));
    predicted_sets.push_back(whole_column(outputs[i].gt(0).unsqueeze(1), 0));
  }
  const LabelSetScores scores = score_label_sets(true_sets, predicted_sets);
  return {{"accuracy", scores.accuracy},
          {"f1_micro", scores.f1_micro},
          {"f1_macro", scores.f1_macro},
          {"f1_samples", scores.f1_samples}};
}

std::vector<std::string> SequenceClassification::prediction_lines(const at::Tensor& predictions,
                                                                  const Dataset&) const {
  std::vector<std::string> lines;
  const at::Tensor outputs = outputs_of(predictions);
  const at::Tensor scores = one_class()                                ? outputs.softmax(1)
                            : options_.problem == Problem::multi_label ? outputs.sigmoid()
                                                                       : outputs;
  for (int64_t i = 0; i < predictions.size(0); ++i) {
    const auto row = row_of(predictions, i), values = row_of(scores, i);
    nlohmann::ordered_json line{{"index", static_cast<int64_t>(row[0])}};
    if (one_class()) {
      line["label"] = labels_.name(static_cast<int64_t>(row[1]));
      line["prediction"] = labels_.name(outputs[i].argmax().item<int64_t>());
    } else if (options_.problem == Problem::multi_label) {
      line["label"] = line["prediction"] = nlohmann::ordered_json::array();
      for (int64_t k = 0; k < labels_.size(); ++k) {
        if (row[static_cast<size_t>(1 + k)] > 0) line["label"].push_back(labels_.name(k));
        if (values[static_cast<size_t>(k)] > 0.5) line["prediction"].push_back(labels_.name(k));
      }
    } else {
      line["label"] = std::vector<double>(row.begin() + 1, row.begin() + 1 + num_truths());
      line["prediction"] = values;
    }
    line["scores"] = values;
    lines.push_back(line.dump());
  }
  return lines;
}

Confusion SequenceClassification::confusion(const at::Tensor& predictions) const {
  constexpr int64_t most_classes = 1000;
  if (!one_class() || predictions.size(0) == 0 || labels_.size() > most_classes) return {};
  return {labels_.names(),
          confusion_matrix(whole_column(predictions, 1),
                           whole_column(outputs_of(predictions).argmax(1, true), 0), labels_.size())};
}

}  // namespace

ObjectivePtr make_sequence_classification(const SequenceClassificationOptions& options,
                                          const ObjectiveSetting& setting) {
  return std::make_shared<SequenceClassification>(options, setting);
}

}  // namespace tessera
