#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

namespace tessera {

class Transport;  // parallel/transport.h: what MPI and NCCL implement
struct Operation;
struct TrafficCounter;

enum class Reduction { sum, max, min };

/// What the ranks of a group do together: collectives only, or messages to one another as well, for which a
/// GPU needs more communicators and streams (parallel/channels.h).
enum class GroupUse { collectives, messages };

/// The end of an asynchronous operation. Destroying it does not wait.
class Work {
 public:
  Work() = default;  ///< already done
  struct State {
    virtual ~State() = default;
    virtual bool done() = 0;
    virtual void wait() = 0;       ///< throws what the operation threw, or on the watchdog's time-out
    virtual double seconds() = 0;  ///< from start to end; 0 before its end
  };
  explicit Work(std::shared_ptr<State> state) : state_(std::move(state)) {}
  bool done() const { return !state_ || state_->done(); }
  void wait() const {
    if (state_) state_->wait();
  }
  /// How long the operation took; 0 before its end and where there was nothing to do.
  double seconds() const { return state_ ? state_->seconds() : 0; }

 private:
  std::shared_ptr<State> state_;
};

/// What a rank has sent: a receive counts as an operation without bytes.
struct Traffic {
  int64_t operations = 0;
  int64_t bytes = 0;  ///< of payload, to other ranks; complete once the operations are done
};

/// A group of ranks that act together: a cheap handle, copied freely. A group of one never calls its
/// transport. Every operation must be called by all ranks of the group in the same order. Tensors are
/// contiguous, on the transport's device, of type float32, float64, bfloat16, float16, int32, int64 or uint8.
/// Errors: std::runtime_error naming the operation, the rank and the host. Where an exception destroys the
/// last handle, the group is left as it stands, since ending it may wait for its other ranks.
class Communicator {
 public:
  Communicator();  ///< a group of one
  explicit Communicator(std::shared_ptr<Transport> transport, GroupUse use = GroupUse::messages);

  int rank() const;
  int size() const;
  at::Device device() const;  ///< where the tensors of operations live; the CPU for a group of one

  /// The ranks that passed the same colour, ordered by (key, rank).
  Communicator split(int color, int key, GroupUse use = GroupUse::collectives) const;
  /// The same, whose traffic counts as this group's.
  Communicator subgroup(int color, int key, GroupUse use = GroupUse::collectives) const;

  /// What this rank has sent through this handle and its copies; nothing in a group of one.
  Traffic traffic() const;
  /// The same group, whose traffic is counted apart.
  Communicator counted_apart() const;

  void all_reduce(const at::Tensor& tensor, Reduction reduction = Reduction::sum) const;
  Work all_reduce_async(const at::Tensor& tensor, Reduction reduction = Reduction::sum) const;

  /// input [size * n, ...] -> output [n, ...]: this rank's block of the sum.
  void reduce_scatter(const at::Tensor& output, const at::Tensor& input,
                      Reduction reduction = Reduction::sum) const;
  Work reduce_scatter_async(const at::Tensor& output, const at::Tensor& input,
                            Reduction reduction = Reduction::sum) const;

  /// input [n, ...] -> output [size * n, ...], in order of rank.
  void all_gather(const at::Tensor& output, const at::Tensor& input) const;
  Work all_gather_async(const at::Tensor& output, const at::Tensor& input) const;

  void broadcast(const at::Tensor& tensor, int root) const;
  void send(const at::Tensor& tensor, int destination, int tag = 0) const;
  Work send_async(const at::Tensor& tensor, int destination, int tag = 0) const;
  void receive(const at::Tensor& tensor, int source, int tag = 0) const;
  Work receive_async(const at::Tensor& tensor, int source, int tag = 0) const;

  /// input [size * n, ...] -> output [size * n, ...]: block i goes to rank i.
  void all_to_all(const at::Tensor& output, const at::Tensor& input) const;
  Work all_to_all_async(const at::Tensor& output, const at::Tensor& input) const;

  void barrier() const;

  /// Makes the host wait for what is under way in this group and in all that were split from it; throws where
  /// any of it failed. What was computed of it before is then as it should be. No message of its own.
  void check() const;

  /// Everyone's text, in order of rank (lengths may differ). For small host-side facts, not for the hot loop.
  std::vector<std::string> gather_text(const std::string& text) const;

 private:
  Work start(Operation operation) const;

  std::shared_ptr<Transport> transport_;  // null for a group of one
  GroupUse use_ = GroupUse::messages;
  std::shared_ptr<TrafficCounter> traffic_;
};

}  // namespace tessera
