#pragma once
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "datasets/dataset.h"
#include "datasets/ordered_pipeline.h"
#include "recipes/error.h"

namespace tessera {

/// How the samples of one step are dealt out. Step s consumes exactly the global samples [s * global_batch,
/// (s + 1) * global_batch) over all ranks; rank r takes the r-th equal part of them, in order, cut into
/// micro-batches. `ranks` counts the data-parallel ranks only.
struct LoaderOptions {
  int64_t global_batch = 1;
  int64_t micro_batch = 1;  ///< samples per micro-step and rank; divides global_batch / ranks
  int rank = 0;
  int ranks = 1;
  int prefetch = 2;  ///< steps kept ready
  int threads = 1;
  int64_t samples = 0;  ///< global samples consumed before
};

/// Micro-steps of one step on one rank; throws an Error where the numbers do not divide.
inline int64_t num_micro_steps(const LoaderOptions& options) {
  const auto& o = options;
  if (o.global_batch < 1 || o.micro_batch < 1 || o.global_batch % (o.micro_batch * o.ranks) != 0) {
    throw Error(fmt::format(
        "global_batch {} does not divide into {} data-parallel ranks x micro-batches of {}: {} x {} = {}; "
        "valid: a global_batch that is a multiple of {}",
        o.global_batch, o.ranks, o.micro_batch, o.ranks, o.micro_batch, o.ranks * o.micro_batch,
        o.ranks * o.micro_batch));
  }
  return o.global_batch / (o.micro_batch * o.ranks);
}

/// Reads and collates ahead of the training loop in background threads. Its whole state is the number of
/// samples that all ranks together have consumed, so a run resumes on any number of ranks. A finite dataset
/// ends after its last whole step (next() is then empty).
template <class Collated>
class Loader {
 public:
  using Collate = std::function<Collated(std::vector<Example>)>;  ///< called from several threads at once

  Loader(DatasetPtr dataset, const LoaderOptions& options, Collate collate)
      : dataset_(std::move(dataset)),
        options_(options),
        collate_(std::move(collate)),
        micro_steps_(num_micro_steps(options)) {
    restore(options.samples);
  }
  Loader(const Loader&) = delete;  // the threads hold `this`
  Loader& operator=(const Loader&) = delete;

  /// The next step: one collated batch per micro-step. What get() or collate throws surfaces here.
  std::vector<Collated> next() {
    auto step = pipeline_->next();
    if (!step) return {};
    samples_ += options_.global_batch;
    return std::move(*step);
  }

  /// Global samples consumed by the steps that next() has given.
  int64_t state() const { return samples_; }

  /// Goes on after `samples` global samples; a number that is no multiple of global_batch (it has changed) is
  /// fine.
  void restore(int64_t samples) {
    pipeline_.reset();
    samples_ = samples;
    pipeline_ = std::make_unique<Pipeline>(
        [this, first = samples]() mutable -> std::optional<int64_t> {
          if (first > dataset_->size() - options_.global_batch) return std::nullopt;
          return std::exchange(first, first + options_.global_batch);
        },
        [this](int64_t first) { return load(first); }, std::max(1, options_.threads),
        std::max(options_.prefetch, options_.threads));
  }

  /// Whole steps that a finite dataset holds.
  int64_t num_steps() const { return dataset_->size() / options_.global_batch; }

 private:
  using Pipeline = OrderedPipeline<int64_t, std::vector<Collated>>;

  /// This rank's part of the step whose first global sample is `first`.
  std::vector<Collated> load(int64_t first) const {
    int64_t index = first + options_.rank * (options_.global_batch / options_.ranks);
    std::vector<Collated> step;
    for (int64_t micro = 0; micro < micro_steps_; ++micro) {
      std::vector<Example> examples;
      examples.reserve(options_.micro_batch);
      for (int64_t i = 0; i < options_.micro_batch; ++i, ++index) {
        examples.push_back(dataset_->get(index));
        examples.back().index = index;
      }
      step.push_back(collate_(std::move(examples)));
    }
    return step;
  }

  DatasetPtr dataset_;
  LoaderOptions options_;
  Collate collate_;
  int64_t micro_steps_;
  int64_t samples_ = 0;
  std::unique_ptr<Pipeline> pipeline_;
};

}  // namespace tessera
