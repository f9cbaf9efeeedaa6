#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "datasets/dataset.h"
#include "parallel/communicator.h"
#include "trainer/model.h"
#include "trainer/objective.h"

namespace tessera {

struct EvaluateOptions {
  int64_t micro_batch = 8;  ///< sequences that one rank computes at a time
  int64_t max_samples = 0;  ///< 0: all
  at::Device device = at::kCPU;
  Communicator data;  ///< the ranks that share the work
  Communicator host;  ///< CPU sums over all ranks
  /// The objective's, or what divides its batches further; empty: the objective's.
  std::function<Batch(const std::vector<Example>&)> collate;
  std::function<LossTerms(const Batch&)> loss;  ///< empty: the objective's, of the whole model
  bool counts = true;  ///< this rank's sums count; others on the tensor and pipeline axes have the same
};

/// Sums over predictions, as training steps and evaluations report them.
struct LossReport {
  double loss = 0;  ///< the sum of the terms' means: what is minimised
  /// "mlm_loss", "mlm_accuracy", "nsp_loss", …, "perplexity" (exp of a language model's loss), and a task's
  /// metrics.
  std::vector<std::pair<std::string, double>> values;
  at::Tensor predictions = {};  ///< Objective::predictions() of the whole dataset, where it has some
};

/// Means from per-term sums of losses and right predictions (NaN: there is no such thing) and their counts,
/// all over the whole global batch.
LossReport make_report(const std::vector<std::string>& terms, const std::vector<double>& sums,
                       const std::vector<double>& correct, const std::vector<double>& counts);

/// Runs the model over a dataset without dropout and without gradients. The same numbers on any number of
/// ranks: masks depend on the sample's index.
LossReport evaluate(const Model& model, const Objective& objective, const Dataset& dataset,
                    const EvaluateOptions& options);

}  // namespace tessera
