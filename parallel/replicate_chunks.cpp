#include "parallel/replicate_chunks.h"

namespace tessera {

ReplicateChunks::ReplicateChunks(const std::vector<NamedParameter>& parameters,
                                 const std::vector<int>& chunk_of, size_t num_chunks,
                                 const Communicator& communicator, const ReplicateOptions& options)
    : chunk_of_(chunk_of) {
  for (size_t chunk = 0; chunk < num_chunks; ++chunk) {
    std::vector<NamedParameter> own;
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (chunk_of[i] == static_cast<int>(chunk)) own.push_back(parameters[i]);
    }
    chunks_.push_back(std::make_unique<Replicate>(own, communicator, options));
  }
}

void ReplicateChunks::begin_step() {
  for (const auto& chunk : chunks_) chunk->begin_step();
}

std::vector<at::Tensor> ReplicateChunks::finish() {
  std::vector<std::vector<at::Tensor>> sums;
  for (const auto& chunk : chunks_) sums.push_back(chunk->finish());
  std::vector<size_t> next(chunks_.size(), 0);
  std::vector<at::Tensor> gradients;
  for (const int chunk : chunk_of_) {
    const auto index = static_cast<size_t>(chunk);
    gradients.push_back(sums[index][next[index]++]);
  }
  return gradients;
}

std::vector<MessageStatistics> ReplicateChunks::statistics() const {
  std::vector<MessageStatistics> all;
  for (const auto& chunk : chunks_) {
    for (const auto& message : chunk->statistics()) all.push_back(message);
  }
  return all;
}

}  // namespace tessera
