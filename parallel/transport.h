#pragma once
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace tessera {

/// What a communicator's handles count together.
struct TrafficCounter {
  std::atomic<int64_t> operations{0};
  std::atomic<int64_t> bytes{0};

  void add(int64_t sent) { bytes.fetch_add(sent, std::memory_order_relaxed); }
  Traffic read() const {
    return {operations.load(std::memory_order_relaxed), bytes.load(std::memory_order_relaxed)};
  }
};

/// One collective or point-to-point operation, as the communicator hands it to its transport. Tensors are
/// checked: contiguous, of a supported type, of matching sizes, on the transport's device.
struct Operation {
  enum class Kind { all_reduce, reduce_scatter, all_gather, broadcast, send, receive, all_to_all, barrier };
  Kind kind = Kind::barrier;
  at::Tensor output;  ///< also the tensor of in-place operations and of receive
  at::Tensor input;   ///< also the tensor of send
  Reduction reduction = Reduction::sum;
  int peer = 0;                                  ///< root, source or destination: a rank of the group
  int tag = 0;                                   ///< of send and receive
  std::shared_ptr<TrafficCounter> traffic = {};  ///< the transport adds what it sends; null: nobody asks
};

/// What a library of messages must offer for a group of two or more ranks.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual at::Device device() const = 0;  ///< where the tensors of operations live
  virtual std::shared_ptr<Work::State> start(Operation operation) = 0;
  /// Null where the new group has one member. Called by all ranks of the group, with the same use.
  virtual std::shared_ptr<Transport> split(int color, int key, GroupUse use) = 0;
  /// Communicator::check(); nothing to do where wait() makes the host wait and tells of all errors.
  virtual void check() {}
};

/// "all-reduce of 4.0 MiB of float32" for messages.
std::string describe(const Operation& operation);

}  // namespace tessera
