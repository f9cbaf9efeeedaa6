#pragma once
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/open.h"
#include "recipes/registry.h"
#include "trainer/batch.h"
#include "trainer/model.h"

namespace tessera {

/// What a micro-batch adds to the loss, term by term in the order of Objective::terms(). The caller divides
/// each term by its GLOBAL count (over all ranks and micro-batches of the step) and adds the terms.
struct LossTerms {
  at::Tensor sums;     ///< [terms] float32, differentiable: sum of the losses of this micro-batch, in nats
  at::Tensor correct;  ///< [terms] float32, detached: how many predictions were right; NaN: no such thing
  at::Tensor outputs =
      {};  ///< of a task, detached: [n, outputs] beside the batch's labels; undefined where it has none
};

/// How often each class was taken for each.
struct Confusion {
  std::vector<std::string> labels;
  std::vector<std::vector<int64_t>> counts;  ///< [truth][prediction]
};

/// What is to be learnt: makes batches of examples, and losses of batches.
class Objective {
 public:
  virtual ~Objective() = default;
  /// Names of the loss terms: "mlm", "nsp", "lm". Metrics are NAME_loss and NAME_accuracy; perplexity is exp
  /// of the first.
  virtual const std::vector<std::string>& terms() const = 0;
  virtual ExampleKind example_kind() const = 0;
  /// What the model needs.
  virtual Heads heads() const { return {}; }
  /// A batch on the CPU. Thread-safe. All that is random depends on the seed and on Example::index alone.
  /// Errors: Error where an example lacks what the objective needs.
  virtual Batch collate(const std::vector<Example>& examples) const = 0;
  /// `hidden`: what model.forward() made of the batch.
  virtual LossTerms loss(const Model& model, const at::Tensor& hidden, const Batch& batch,
                         const DropoutState& dropout = {}) const = 0;

  /// Opens data that this objective reads itself (JSON lines, CSV, TSV): finite, in the file's order. Null:
  /// it learns from token files. Errors: Error naming file, line and column.
  virtual DatasetPtr open(const std::string& /*path*/) const { return nullptr; }
  /// Writes what it has found in the data (a task's labels) into its section of the recipe.
  virtual void settle(Choice& section) const {}
  /// What a batch says of its samples, for metrics: [rows, columns] float64 on the CPU, first the sample's
  /// index, then (where it has several rows) the place in it; columns the same for all batches. `outputs`:
  /// LossTerms::outputs. Undefined: nothing.
  virtual at::Tensor predictions(const Batch& /*batch*/, const at::Tensor& /*outputs*/) const { return {}; }
  /// Metrics of the predictions for a whole dataset, ordered by sample.
  virtual std::vector<std::pair<std::string, double>> metrics(const at::Tensor& /*predictions*/,
                                                              const Dataset& /*dataset*/) const {
    return {};
  }
  /// Names of what metrics() gives.
  virtual std::vector<std::string> metric_names() const { return {}; }
  /// The predictions for people and programs: a JSON object for each sample.
  virtual std::vector<std::string> prediction_lines(const at::Tensor& /*predictions*/,
                                                    const Dataset& /*dataset*/) const {
    return {};
  }
  /// What was taken for what; no labels: there is no such thing.
  virtual Confusion confusion(const at::Tensor& /*predictions*/) const { return {}; }
};
using ObjectivePtr = std::shared_ptr<const Objective>;

}  // namespace tessera
