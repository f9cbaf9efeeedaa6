#pragma once
#include <memory>
#include <vector>

#include "parallel/replicate.h"

namespace tessera {

/// Replicate for a stage of a pipeline with several chunks: each has its own last micro-step, and sends its
/// buckets then.
class ReplicateChunks : public Strategy {
 public:
  /// `chunk_of`: of each parameter; chunks without any are among the `num_chunks` too.
  ReplicateChunks(const std::vector<NamedParameter>& parameters, const std::vector<int>& chunk_of,
                  size_t num_chunks, const Communicator& communicator, const ReplicateOptions& options);

  void begin_step() override;
  void select_chunk(int chunk) override { current_ = static_cast<size_t>(chunk); }
  void begin_micro_step(bool last) override { chunks_[current_]->begin_micro_step(last); }
  std::vector<at::Tensor> finish() override;
  std::vector<MessageStatistics> statistics() const override;

 private:
  std::vector<std::unique_ptr<Replicate>> chunks_;
  std::vector<int> chunk_of_;  // by parameter
  size_t current_ = 0;
};

}  // namespace tessera
