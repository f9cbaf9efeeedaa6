#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <map>
#include <utility>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/pipeline_schedule.h"

namespace tessera {

/// The stages as a ring (with several chunks the last stage sends to the first). Every pair of neighbours has
/// a communicator of its own: NCCL carries out a communicator's messages of one direction in the order in
/// which they were posted, and a receive posted ahead from one neighbour must not hold up a send to the
/// other. Along each, activations go one way and gradients the other, also with two stages, which are joined
/// twice.
class PipelineLinks {
 public:
  /// Called by all ranks along the pipeline axis, whose ranks are the stages.
  explicit PipelineLinks(const Communicator& axis);
  /// Called by all of them too: ending a communicator may wait for its other rank.
  ~PipelineLinks();
  PipelineLinks(const PipelineLinks&) = delete;
  PipelineLinks& operator=(const PipelineLinks&) = delete;

  int stage() const { return stage_; }
  int num_stages() const { return num_stages_; }
  int next() const { return (stage_ + 1) % num_stages_; }
  int previous() const { return (stage_ + num_stages_ - 1) % num_stages_; }

  Work send(const at::Tensor& tensor, Phase phase) const;
  Work receive(const at::Tensor& tensor, Phase phase) const;

 private:
  int stage_;
  int num_stages_;
  Communicator with_next_;
  Communicator with_previous_;
};

/// What this stage sends and receives while it carries out one table. Both ends of a link take its messages
/// in the order in which the sender's table produces them, so nothing needs tags.
class PipelineMail {
 public:
  /// `gradient_reaches[part]`: whether gradients are sent to that part.
  PipelineMail(const PipelineLinks& links, const PipelineTable& table,
               const std::vector<bool>& gradient_reaches);

  /// Starts to receive the action's input into tensors of this kind, and all that the link brings before it.
  void post(const PipelineAction& action, at::IntArrayRef shape, const at::TensorOptions& options);
  /// The action's input, once it is here; undefined where nobody sends one.
  at::Tensor take(const PipelineAction& action);
  /// Hands a result on to `receiver`, an action of a neighbour (or of this stage, where it is alone).
  void send(const PipelineAction& receiver, const at::Tensor& tensor);
  /// Waits until everything has been sent.
  void finish();

 private:
  struct Parcel {
    at::Tensor tensor;
    Work work;
  };
  struct Inbox {
    std::vector<PipelineAction> order;  // of messages
    size_t num_posted = 0;
    std::map<std::pair<int, int>, Parcel> parcels;  // posted and not yet taken, by (chunk, micro-batch)
  };
  Inbox& inbox(Phase phase) { return inboxes_[phase == Phase::forward ? 0 : 1]; }

  const PipelineLinks& links_;
  std::array<Inbox, 2> inboxes_;
  std::vector<Parcel> sent_;
};

}  // namespace tessera
