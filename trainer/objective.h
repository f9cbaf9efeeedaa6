#pragma once
#include <memory>
#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/open.h"
#include "trainer/batch.h"
#include "trainer/model.h"

namespace tessera {

/// What a micro-batch adds to the loss, term by term in the order of Objective::terms(). The caller divides
/// each term by its GLOBAL count (over all ranks and micro-batches of the step) and adds the terms.
struct LossTerms {
  at::Tensor sums;     ///< [terms] float32, differentiable: sum of the losses of this micro-batch, in nats
  at::Tensor correct;  ///< [terms] float32, detached: how many predictions were right
};

/// What is to be learnt: makes batches of examples, and losses of batches.
class Objective {
 public:
  virtual ~Objective() = default;
  /// Names of the loss terms: "mlm", "nsp", "lm". Metrics are NAME_loss and NAME_accuracy; perplexity is exp
  /// of the first.
  virtual const std::vector<std::string>& terms() const = 0;
  virtual ExampleKind example_kind() const = 0;
  /// Whether the model needs a sentence-pair head.
  virtual bool next_sentence() const { return false; }
  /// A batch on the CPU. Thread-safe. All that is random depends on the seed and on Example::index alone.
  /// Errors: Error where an example lacks what the objective needs.
  virtual Batch collate(const std::vector<Example>& examples) const = 0;
  /// `hidden`: what model.forward() made of the batch.
  virtual LossTerms loss(const Model& model, const at::Tensor& hidden, const Batch& batch) const = 0;
};
using ObjectivePtr = std::shared_ptr<const Objective>;

}  // namespace tessera
