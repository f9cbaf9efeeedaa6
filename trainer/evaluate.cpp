#include "trainer/evaluate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace tessera {

LossReport make_report(const std::vector<std::string>& terms, const std::vector<double>& sums,
                       const std::vector<double>& correct, const std::vector<double>& counts) {
  LossReport report;
  for (size_t i = 0; i < terms.size(); ++i) {
    if (counts[i] == 0) continue;  // nothing predicted: no mean to speak of
    const double mean = sums[i] / counts[i];
    report.loss += mean;
    report.values.emplace_back(terms[i] + "_loss", mean);
    if (!std::isnan(correct[i])) report.values.emplace_back(terms[i] + "_accuracy", correct[i] / counts[i]);
    if (i == 0 && terms[i].ends_with("lm")) report.values.emplace_back("perplexity", std::exp(mean));
  }
  return report;
}

namespace {

/// The rows of all ranks, on each, ordered by their first two columns.
at::Tensor gather_rows(const std::vector<at::Tensor>& mine, const Communicator& host) {
  const at::Tensor sizes = at::zeros({host.size()}, at::kLong);
  auto* size = sizes.data_ptr<int64_t>();
  const at::Tensor own = mine.empty() ? at::Tensor() : at::cat(mine);
  if (own.defined()) size[host.rank()] = own.size(0);
  host.all_reduce(sizes);
  const at::Tensor columns = at::full({1}, own.defined() ? own.size(1) : 0, at::kLong);
  host.all_reduce(columns, Reduction::max);
  int64_t first = 0, total = 0;
  for (int rank = 0; rank < host.size(); ++rank) {
    if (rank < host.rank()) first += size[rank];
    total += size[rank];
  }
  at::Tensor all = at::zeros({total, columns.item<int64_t>()}, at::kDouble);
  if (own.defined()) all.slice(0, first, first + own.size(0)).copy_(own);
  host.all_reduce(all);
  if (total == 0) return all;
  const auto sorted_by = [](const at::Tensor& rows, int64_t column) {
    return rows.index_select(0, std::get<1>(rows.select(1, column).sort(/*stable=*/true, 0, false)));
  };
  return sorted_by(all.size(1) > 1 ? sorted_by(all, 1) : all, 0);
}

}  // namespace

LossReport evaluate(const Model& model, const Objective& objective, const Dataset& dataset,
                    const EvaluateOptions& options) {
  const at::NoGradGuard no_gradients;
  const auto num_terms = static_cast<int64_t>(objective.terms().size());
  int64_t size = dataset.size();
  if (options.max_samples > 0) size = std::min(size, options.max_samples);
  // Rows: sums of losses, right predictions, counts. Float64: the order of ranks must not show. The first two
  // are added up on the device, which nobody waits for before the end.
  const at::Tensor totals = at::zeros({3, num_terms}, at::kDouble);
  const at::Tensor sums = at::zeros({2, num_terms}, totals.options().device(options.device));
  const int64_t stride = options.micro_batch * options.data.size();
  std::vector<at::Tensor> rows;
  for (int64_t start = 0; start < size; start += stride) {
    const int64_t first = start + options.micro_batch * options.data.rank();
    // All ranks go forward equally often, since some strategies exchange parameters there: who has no samples
    // left computes one for nothing.
    const bool counts = first < size && options.counts;
    std::vector<Example> examples;
    for (int64_t i = std::min(first, size - 1); i < std::min(first + options.micro_batch, size); ++i) {
      examples.push_back(dataset.get(i));
      examples.back().index = i;
    }
    const Batch collated = options.collate ? options.collate(examples) : objective.collate(examples);
    const Batch batch = collated.to(options.device);
    const LossTerms terms =
        options.loss ? options.loss(batch) : objective.loss(model, model.forward(batch), batch);
    if (!counts) continue;
    sums[0] += terms.sums.to(at::kDouble);
    sums[1] += terms.correct.to(at::kDouble);
    const at::Tensor predicted = objective.predictions(collated, terms.outputs);
    if (predicted.defined() && predicted.size(0) > 0) rows.push_back(predicted);
    for (int64_t i = 0; i < num_terms; ++i)
      totals[2][i] += static_cast<double>(batch.counts[static_cast<size_t>(i)]);
  }
  totals.slice(0, 0, 2).copy_(sums);
  options.host.all_reduce(totals);
  const auto row = [&](int64_t i) {
    const at::Tensor values = totals[i].contiguous();
    return std::vector<double>(values.data_ptr<double>(), values.data_ptr<double>() + num_terms);
  };
  LossReport report = make_report(objective.terms(), row(0), row(1), row(2));
  if (objective.heads().task == TaskHead::none) return report;
  report.predictions = gather_rows(rows, options.host);
  const auto metrics = objective.metrics(report.predictions, dataset);
  report.values.insert(report.values.end(), metrics.begin(), metrics.end());
  return report;
}

}  // namespace tessera
