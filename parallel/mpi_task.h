#pragma once
#include <mpi.h>

#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "parallel/neighbours.h"
#include "parallel/schedule.h"

namespace tessera {

/// The ranks of a communicator as MPI knows them.
struct MpiGroup {
  std::vector<int> members;  ///< ranks of the world, in order of their rank here
  int rank = 0;              ///< this process's
  int id = 0;                ///< part of every message's tag: groups never mix up their messages
};

/// Shared by a process's tasks.
struct MpiContext {
  MPI_Comm collectives = MPI_COMM_NULL;
  MPI_Comm point_to_point = MPI_COMM_NULL;
  std::vector<std::string> hosts;  ///< of the world's ranks
  mutable Neighbours neighbours;   ///< those of this host
  int rank = 0;                    ///< in the world
  std::chrono::milliseconds time_limit{0};
};

/// One operation under way. Made by any thread; advanced by the worker only.
class MpiTask : public Work::State {
 public:
  MpiTask(Operation operation, std::shared_ptr<const MpiGroup> group, uint32_t first_sequence,
          std::atomic<int>& num_waiting);

  /// Sequence numbers that a task of this operation uses up: one per lane, none where only two ranks take
  /// part.
  uint32_t num_sequences() const { return point_to_point() ? 0 : static_cast<uint32_t>(schedule_.num_lanes); }

  bool done() override { return done_.load(std::memory_order_acquire); }
  void wait() override;
  double seconds() override;

  /// Posts messages, tests, computes. True where anything moved. Throws on an error of MPI and on the time
  /// limit.
  bool advance(const MpiContext& context);
  void finish(std::exception_ptr error);

 private:
  struct Lane {
    std::vector<Round> rounds;
    size_t round = 0;
    std::vector<MPI_Request> requests;
    std::vector<int> peers;  // of the requests
    int tag = 0;
    bool posted = false;
  };
  bool point_to_point() const {
    return operation_.kind == Operation::Kind::send || operation_.kind == Operation::Kind::receive;
  }
  void open_lanes();
  void post(Lane& lane, const MpiContext& context);
  bool advance_lane(Lane& lane, const MpiContext& context);
  void watch(bool moved, const MpiContext& context);
  std::vector<int> awaited() const;
  std::string names(const std::vector<int>& peers, const MpiContext& context) const;

  Operation operation_;
  Schedule schedule_;
  std::shared_ptr<const MpiGroup> group_;
  uint32_t first_sequence_;
  int64_t next_lane_ = 0;
  std::vector<Lane> lanes_;
  std::chrono::steady_clock::time_point start_;
  std::chrono::steady_clock::time_point last_progress_;  // the end, once done
  std::chrono::steady_clock::time_point last_watch_, last_look_at_peers_;
  std::exception_ptr error_;
  std::atomic<int>& num_waiting_;  // threads that wait: the worker then polls more eagerly
  std::atomic<bool> done_{false};
};

}  // namespace tessera
