#pragma once
#include <map>
#include <memory>
#include <vector>

#include "parallel/mesh.h"
#include "parallel/pipeline.h"
#include "parallel/strategy.h"
#include "trainer/objective.h"
#include "trainer/pipeline_parts.h"

namespace tessera {

/// What a pipeline's stages work with; all of it outlives them.
struct PipelineWork {
  const Model& model;
  const Objective& objective;
  Strategy& strategy;
  const PipelineParts& parts;
};

/// Micro-batches on their way through a model whose parts lie on several ranks.
class PipelineStep {
 public:
  /// Called by all ranks along the pipeline axis. `hidden`: type and device of hidden states.
  PipelineStep(const PipelineWork& work, const Recipe& recipe, const Mesh& mesh, at::TensorOptions hidden);

  /// Of a micro-batch on the model's device, on the last stage: the differentiable loss, 0-dim.
  using Loss = std::function<at::Tensor(const LossTerms& terms)>;
  /// Forward and backward of a step's micro-batches, which are of one size and on the model's device.
  /// Gradients are the strategy's.
  void train(const std::vector<Batch>& micro_batches, const DropoutState& dropout, const Loss& loss);
  /// Without gradients; undefined tensors but on the last stage.
  LossTerms evaluate(const Batch& batch);

  PipelineSeconds seconds() const { return pipeline_.seconds(); }

 private:
  std::vector<int64_t> hidden_shape(const Batch& batch) const;
  at::Tensor forward(int chunk, const Batch& batch, const at::Tensor& input,
                     const DropoutState& dropout) const;

  PipelineWork work_;
  PipelineSchedule schedule_;
  int stage_;
  int64_t split_;  // ranks that divide a sample's rows between layers
  int64_t hidden_size_;
  Pipeline pipeline_;
  std::map<int, PipelineTable> tables_;  // by number of micro-batches
};

}  // namespace tessera
