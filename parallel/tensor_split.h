#pragma once
#include "parallel/communicator.h"

namespace tessera {

/// The ranks that divide each layer among them (Shoeybi et al., "Megatron-LM", 2019). Between the divided
/// products each rank has an equal run of every sample's positions (Korthikanti et al., "Reducing activation
/// recomputation", 2022): hidden states are [batch * sequence / size, hidden] there, "own rows", and
/// [batch * sequence, hidden] inside, "all rows". What every rank computes alike (heads on picked rows) has
/// on each the gradient of that rank's share of the loss: the sum over ranks is the gradient.
class TensorSplit {
 public:
  explicit TensorSplit(Communicator ranks) : ranks_(std::move(ranks)) {}
  int rank() const { return ranks_.rank(); }
  int size() const { return ranks_.size(); }
  const Communicator& ranks() const { return ranks_; }
  /// The first of this rank's things, of `count` that are divided.
  int64_t first_of(int64_t count) const { return count * rank() / size(); }

  /// A message under way.
  struct Pending {
    at::Tensor message;
    Work work;
    int64_t batch = 1;
    at::Tensor kept = {};  ///< what is being sent
  };
  /// Own rows to all rows. Contiguous input; nothing is recorded.
  Pending start_gather(const at::Tensor& own, int64_t batch) const;
  at::Tensor finish_gather(const Pending& pending) const;
  /// Each rank's addend of all rows to the sum of own rows.
  Pending start_sum(const at::Tensor& addend, int64_t batch) const;
  at::Tensor finish_sum(const Pending& pending) const;

  // Differentiable.
  at::Tensor gather(const at::Tensor& own, int64_t batch) const;
  at::Tensor sum(const at::Tensor& addend, int64_t batch) const;
  /// Rows `positions` [n] int64 of all rows, on every rank: [n, hidden].
  at::Tensor pick(const at::Tensor& own, const at::Tensor& positions, int64_t batch) const;
  /// What all ranks have alike, and the loss counts once.
  at::Tensor once(const at::Tensor& x) const;
  /// Own rows of the embeddings of `indices` [batch, sequence], of a table whose rows are divided: this rank
  /// has `table`, which begins with row `first`.
  at::Tensor lookup(const at::Tensor& table, int64_t first, const at::Tensor& indices) const;

 private:
  Communicator ranks_;
};

}  // namespace tessera
