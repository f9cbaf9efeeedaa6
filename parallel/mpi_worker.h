#pragma once
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

#include "parallel/mpi_task.h"

namespace tessera {

/// The one thread that calls MPI, from MPI_Init to MPI_Finalize. It keeps all operations under way while
/// other threads compute, and sleeps between polls so as not to take a processor from them.
class MpiWorker {
 public:
  /// Starts the thread and returns at once; MPI_Init (0.25 s) runs beside whatever the caller does next.
  /// `rank` and `size` are what the launcher said; Error where MPI says otherwise. Errors of starting appear
  /// in wait_until_ready() and in every operation.
  MpiWorker(std::chrono::milliseconds time_limit, int rank, int size);
  ~MpiWorker();  ///< finalises, unless abandoned
  MpiWorker(const MpiWorker&) = delete;
  MpiWorker& operator=(const MpiWorker&) = delete;

  const MpiContext& wait_until_ready();
  void submit(std::shared_ptr<MpiTask> task);
  std::atomic<int>& num_waiting() { return num_waiting_; }
  int& next_group_id() { return next_group_id_; }  ///< for the transports' split

  /// Waits for what is under way, then MPI_Finalize (a barrier of all ranks). False where others did not come
  /// in time.
  bool finish();
  /// Leaves MPI as it is, for a process about to end with an error.
  void abandon();
  /// MPI_Abort, which ends all ranks; gives up waiting for it after some seconds.
  void abort(int code);

 private:
  void run();
  void start_mpi();
  void check_world() const;
  bool take_new(std::unique_lock<std::mutex>& lock);
  bool advance_all();
  void fail_all(const std::exception_ptr& error);
  void rest(bool moved);

  enum class State { starting, running, finishing, ended, abandoned };
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<MpiTask>> submitted_;  // guarded by mutex_
  State state_ = State::starting;                   // guarded by mutex_
  std::exception_ptr start_error_;                  // guarded by mutex_; for wait_until_ready()
  std::atomic<int> abort_code_{-1};
  std::atomic<int> num_waiting_{0};

  const int expected_rank_;
  const int expected_size_;
  MpiContext context_;  // written before state_ becomes running
  std::vector<std::shared_ptr<MpiTask>> active_;
  std::vector<std::shared_ptr<MpiTask>> failed_;  // MPI may still write into their tensors
  int idle_polls_ = 0;
  int next_group_id_ = 1;
  std::thread thread_;
};

/// All ranks of the world over MPI.
std::shared_ptr<Transport> make_mpi_transport(std::shared_ptr<MpiWorker> worker, int rank, int size);

}  // namespace tessera
