#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/launch_info.h"
#include "parallel/unwinding.h"

namespace tessera {

class MpiWorker;

/// All ranks of the job: starts MPI where a launcher started several, ends it when the last line of main is
/// reached. At most one at a time. A process alone never touches MPI.
class World {
 public:
  /// Returns before MPI is up (0.25 s): the first operation waits for it, and reports errors of starting.
  World();
  /// Ends MPI together with all ranks; where an exception is passing through, leaves that to abort_job().
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  int rank() const { return info_.rank; }
  int size() const { return info_.size; }
  int local_rank() const { return info_.local_rank; }
  int local_size() const { return info_.local_size; }
  const LaunchInfo& launch() const { return info_; }

  /// All ranks; CPU tensors. For host-side facts, and for training where there is no GPU.
  const Communicator& communicator() const { return communicator_; }

  /// All ranks; tensors on GPU `device` of this rank, through NCCL. Called by all ranks. Error without a GPU.
  Communicator gpu_communicator(int device) const;

  /// Threads for this rank's computations, from the processors that it may use and the ranks that share them;
  /// a user's OMP_NUM_THREADS wins. Called by all ranks. Tells ATen.
  int set_threads();

  /// Named in error messages from now on; 0 at the start.
  void set_step(int64_t step);

 private:
  LaunchInfo info_;
  std::shared_ptr<MpiWorker> worker_;  // null for a process alone
  Communicator communicator_;
  Unwinding unwinding_;
};

/// Runs a program's body in a World and gives its exit code. An exception, also of the World's start, ends
/// the job on all ranks: code 2 for Error (the user can mend it), 1 for all others, with its message printed
/// once. So does what ends a program without unwinding it: an exception out of a thread or a destructor.
int run_job(const std::function<int(World&)>& body);

/// Prints "rank R (host, step S): message" (the message alone where there is one rank) and ends the job
/// everywhere. Works without a World too. Ranks that fail together print once: others give rank 0 a moment to
/// end them.
[[noreturn]] void abort_job(const std::string& message, int code);

}  // namespace tessera
