#include <ATen/ATen.h>
#include <fmt/format.h>

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

constexpr int32_t no_label = -1;
/// How an example's labels say that a piece continues a word of this class; its own inverse.
int32_t continued(int32_t label) { return -2 - label; }

/// A tag for each word of a sentence.
class TokenClassification : public Objective {
 public:
  TokenClassification(const TokenClassificationOptions& options, const ObjectiveSetting& setting)
      : options_(options), setting_(setting), labels_(find_labels()) {}

  const std::vector<std::string>& terms() const override { return terms_; }
  ExampleKind example_kind() const override { return ExampleKind::single; }
  Heads heads() const override {
    return {.vocabulary = false, .task = TaskHead::tokens, .outputs = labels_.size()};
  }
  void settle(Choice& section) const override {
    section.get_if<TokenClassificationOptions>()->labels = labels_.names();
  }

  DatasetPtr open(const std::string& path) const override;
  Batch collate(const std::vector<Example>& examples) const override;
  LossTerms loss(const Model& model, const at::Tensor& hidden, const Batch& batch,
                 const DropoutState& dropout) const override {
    return class_loss(model.task_logits(hidden, batch, dropout), batch.labels);
  }

  // A row: sample, position, truth, prediction.
  at::Tensor predictions(const Batch& batch, const at::Tensor& outputs) const override;
  std::vector<std::pair<std::string, double>> metrics(const at::Tensor& predictions,
                                                      const Dataset& dataset) const override;
  std::vector<std::string> metric_names() const override {
    return {"accuracy", "entity_precision", "entity_recall", "entity_f1"};
  }
  std::vector<std::string> prediction_lines(const at::Tensor& predictions,
                                            const Dataset& dataset) const override;
  Confusion confusion(const at::Tensor& predictions) const override;

 private:
  struct Sentence {
    int64_t sample;
    std::vector<std::string> truths, predictions;
  };
  LabelNames find_labels() const;
  Example encode(const std::vector<std::string>& words, const std::vector<int32_t>& tags,
                 RowMaker& rows) const;
  /// The words' tags, without pieces that only learn.
  std::vector<Sentence> sentences(const at::Tensor& predictions, const Dataset& dataset) const;

  TokenClassificationOptions options_;
  ObjectiveSetting setting_;
  LabelNames labels_;
  std::vector<std::string> terms_{"tag"};
};

LabelNames TokenClassification::find_labels() const {
  if (!options_.labels.empty()) return LabelNames(options_.labels);
  std::set<std::string> found;
  for (const std::string& path : setting_.training) {
    const Records records = Records::open(path);
    for (int64_t i = 0; i < records.size(); ++i) {
      const auto tags = records.texts(i, options_.tags);
      found.insert(tags.begin(), tags.end());
    }
  }
  return found.empty() ? LabelNames({"LABEL_0", "LABEL_1"}) : LabelNames::of(found);
}

Example TokenClassification::encode(const std::vector<std::string>& words, const std::vector<int32_t>& tags,
                                    RowMaker& rows) const {
  std::vector<int32_t> pieces, labels, ids;
  for (size_t i = 0; i < words.size(); ++i) {
    ids.clear();
    setting_.tokenizer->encode(options_.space_before_words && i > 0 ? " " + words[i] : words[i], ids);
    for (size_t k = 0; k < ids.size(); ++k) labels.push_back(k == 0 ? tags[i] : continued(tags[i]));
    pieces.insert(pieces.end(), ids.begin(), ids.end());
  }
  if (rows.framed()) labels.insert(labels.begin(), no_label);
  Example example = rows.single(std::move(pieces));
  labels.resize(example.tokens.size(), no_label);
  if (rows.framed()) labels.back() = no_label;
  example.labels = std::move(labels);
  return example;
}

DatasetPtr TokenClassification::open(const std::string& path) const {
  const Records records = Records::open(path);
  RowMaker rows(setting_.tokenizer, setting_.sequence_length);
  auto examples = std::make_shared<TaskExamples>();
  for (int64_t i = 0; i < records.size(); ++i) {
    const auto words = records.texts(i, options_.tokens), tags = records.texts(i, options_.tags);
    if (words.size() != tags.size()) {
      throw Error(fmt::format("{}: {} words in column '{}' but {} tags in '{}'; valid: a tag for each word",
                              records.where(i), words.size(), options_.tokens, tags.size(), options_.tags));
    }
    std::vector<int32_t> numbers;
    for (const auto& tag : tags) numbers.push_back(labels_.number(tag, records.where(i)));
    examples->add(encode(words, numbers, rows));
  }
  examples->set_note(path, rows.note());
  return examples;
}

Batch TokenClassification::collate(const std::vector<Example>& examples) const {
  Batch batch = collate_rows(examples, setting_);
  std::vector<int64_t> positions, labels;
  for (size_t i = 0; i < examples.size(); ++i) {
    const auto& given = examples[i].labels;
    for (size_t k = 0; k < given.size(); ++k) {
      int32_t label = given[k];
      if (label < no_label && options_.label_all_pieces) label = continued(label);
      if (label < 0) continue;
      positions.push_back(static_cast<int64_t>(i) * batch.sequence() + static_cast<int64_t>(k));
      labels.push_back(label);
    }
  }
  set_labels(batch, std::move(positions), std::move(labels));
  return batch;
}

at::Tensor TokenClassification::predictions(const Batch& batch, const at::Tensor& outputs) const {
  const LabelledRows labelled = labelled_rows(batch);
  const at::Tensor predicted = outputs.argmax(1).to(at::kCPU).index_select(0, labelled.rows);
  return columns_of(
      {labelled.samples, labelled.positions, batch.labels.index_select(0, labelled.rows), predicted});
}

std::vector<TokenClassification::Sentence> TokenClassification::sentences(const at::Tensor& predictions,
                                                                          const Dataset& dataset) const {
  std::vector<Sentence> all;
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < predictions.size(0); ++i) {
    const auto row = row_of(predictions, i);
    const auto sample = static_cast<int64_t>(row[0]);
    if (all.empty() || all.back().sample != sample) {
      all.push_back({sample, {}, {}});
      if (options_.label_all_pieces) labels = dataset.get(sample).labels;
    }
    if (options_.label_all_pieces && labels.at(static_cast<size_t>(row[1])) < 0) continue;
    all.back().truths.push_back(labels_.name(static_cast<int64_t>(row[2])));
    all.back().predictions.push_back(labels_.name(static_cast<int64_t>(row[3])));
  }
  return all;
}

std::vector<std::pair<std::string, double>> TokenClassification::metrics(const at::Tensor& predictions,
                                                                         const Dataset& dataset) const {
  std::vector<std::vector<std::string>> truths, predicted;
  for (auto& sentence : sentences(predictions, dataset)) {
    truths.push_back(std::move(sentence.truths));
    predicted.push_back(std::move(sentence.predictions));
  }
  const EntityScores scores = score_entities(truths, predicted);
  return {{"accuracy", scores.accuracy},
          {"entity_precision", scores.all.precision},
          {"entity_recall", scores.all.recall},
          {"entity_f1", scores.all.f1}};
}

std::vector<std::string> TokenClassification::prediction_lines(const at::Tensor& predictions,
                                                               const Dataset& dataset) const {
  std::vector<std::string> lines;
  for (const auto& sentence : sentences(predictions, dataset)) {
    lines.push_back(nlohmann::ordered_json{
        {"index", sentence.sample}, {"label", sentence.truths}, {"prediction", sentence.predictions}}
                        .dump());
  }
  return lines;
}

Confusion TokenClassification::confusion(const at::Tensor& predictions) const {
  constexpr int64_t most_classes = 1000;
  if (predictions.size(0) == 0 || labels_.size() > most_classes) return {};
  return {labels_.names(),
          confusion_matrix(whole_column(predictions, 2), whole_column(predictions, 3), labels_.size())};
}

}  // namespace

ObjectivePtr make_token_classification(const TokenClassificationOptions& options,
                                       const ObjectiveSetting& setting) {
  return std::make_shared<TokenClassification>(options, setting);
}

}  // namespace tessera
