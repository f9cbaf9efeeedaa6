#include "trainer/pipeline_step.h"

#include <ATen/ATen.h>

namespace tessera {

PipelineStep::PipelineStep(const PipelineWork& work, const Recipe& recipe, const Mesh& mesh,
                           at::TensorOptions hidden)
    : work_(work),
      schedule_(recipe.parallel.pipeline_schedule),
      stage_(mesh.coordinate(Axis::pipeline)),
      split_(mesh.size(Axis::tensor)),
      hidden_size_(recipe.model.integer("hidden_size").value()),
      pipeline_(mesh.along(Axis::pipeline), {hidden, work.parts.needs_gradient}) {}

std::vector<int64_t> PipelineStep::hidden_shape(const Batch& batch) const {
  return {batch.batch() * batch.sequence() / split_, hidden_size_};
}

at::Tensor PipelineStep::forward(int chunk, const Batch& batch, const at::Tensor& input,
                                 const DropoutState& dropout) const {
  return work_.model.run(work_.parts.of(stage_, chunk), input, batch, dropout);
}

void PipelineStep::train(const std::vector<Batch>& micro_batches, const DropoutState& dropout,
                         const Loss& loss) {
  const auto count = static_cast<int>(micro_batches.size());
  if (!tables_.contains(count)) {
    tables_[count] = make_pipeline_table(schedule_, {work_.parts.stages, work_.parts.chunks(), count});
  }
  bool in_micro_step = false;
  const auto end_micro_step = [&] {
    if (in_micro_step) work_.strategy.end_micro_step();
    in_micro_step = false;
  };
  PipelineCallbacks callbacks;
  callbacks.forward = [&](int chunk, int micro_batch, const at::Tensor& input) {
    end_micro_step();
    const Batch& batch = micro_batches[static_cast<size_t>(micro_batch)];
    at::Tensor hidden = forward(chunk, batch, input, dropout);
    if (!work_.parts.of(stage_, chunk).finishes) return hidden;
    return loss(work_.objective.loss(work_.model, hidden, batch, dropout));
  };
  callbacks.begin_backward = [&](int chunk, int, bool last) {
    end_micro_step();
    work_.strategy.select_chunk(chunk);
    work_.strategy.begin_micro_step(last);
    in_micro_step = true;
  };
  pipeline_.run(tables_[count], hidden_shape(micro_batches.front()), callbacks);
  end_micro_step();
}

LossTerms PipelineStep::evaluate(const Batch& batch) {
  LossTerms terms;
  PipelineCallbacks callbacks;
  callbacks.forward = [&](int chunk, int, const at::Tensor& input) {
    at::Tensor hidden = forward(chunk, batch, input, {});
    if (!work_.parts.of(stage_, chunk).finishes) return hidden;
    terms = work_.objective.loss(work_.model, hidden, batch);
    return terms.sums.sum();
  };
  const PipelineSizes sizes{work_.parts.stages, work_.parts.chunks(), 1};
  pipeline_.run(make_forward_table(sizes), hidden_shape(batch), callbacks);
  return terms;
}

}  // namespace tessera
