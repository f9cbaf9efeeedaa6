#pragma once
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include <chrono>
#include <memory>
#include <mutex>
#include <vector>

#include "parallel/channels.h"
#include "parallel/unwinding.h"
#include "parallel/watchdog.h"

namespace tessera {

/// Throws std::runtime_error "NCCL: <what>: <text>" unless all is well.
void check_nccl(ncclResult_t status, const char* what);

/// A stream that nobody else issues to: those of LibTorch's pool are dealt out again after the 32nd. Given
/// back it is kept for the next who needs one, not destroyed: what is in it still runs, and the allocator
/// notes events in it when tensors that outlive a group are freed.
class OwnStream {
 public:
  explicit OwnStream(c10::DeviceIndex device);
  ~OwnStream();
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  c10::cuda::CUDAStream get() const { return stream_; }

 private:
  c10::cuda::CUDAStream stream_;
};

/// The communicators of a group, by Channel.
class NcclComms {
 public:
  /// Destroys them, which may wait for other ranks; not after abort() or where an exception is under way.
  ~NcclComms();
  NcclComms() = default;
  NcclComms(const NcclComms&) = delete;
  NcclComms& operator=(const NcclComms&) = delete;

  ncclComm_t of(Channel channel) const { return comms_.at(static_cast<size_t>(channel)); }
  void add(ncclComm_t comm);
  /// What NCCL has found wrong since; empty: nothing.
  std::string problem() const;
  /// For the watchdog: who waits for the device gets out of it.
  void abort();
  /// Whoever takes them destroys them; none after abort().
  std::vector<ncclComm_t> release();

 private:
  mutable std::mutex mutex_;
  std::vector<ncclComm_t> comms_;
  bool aborted_ = false;
  Unwinding unwinding_;
};

/// What an operation's handle and its transport share.
class NcclGroup {
 public:
  struct Options {
    at::Device device;
    std::chrono::milliseconds time_limit;
    GroupUse use = GroupUse::messages;
  };
  /// Of `size` ranks, for messages; without communicators yet.
  NcclGroup(const Options& options, int size);
  /// Ends the communicators before the watchdog's eyes, as that waits for other ranks; not where an exception
  /// is under way.
  ~NcclGroup();
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;
  /// Takes a communicator over. Called by all ranks of the group; splits off what the use needs beside it.
  void add_channels(ncclComm_t collective);

  int rank() const { return rank_; }
  int size() const { return size_; }
  const Options& options() const { return options_; }
  ncclComm_t comm(Channel channel) const { return comms_->of(channel); }
  c10::cuda::CUDAStream stream(Channel channel) const {
    return streams_[static_cast<size_t>(channel)]->get();
  }
  Watchdog& watchdog() { return watchdog_; }

  /// The ranks with this colour: null for one alone. Called by all ranks of the group.
  std::shared_ptr<NcclGroup> split(int color, int key, GroupUse use);
  /// Communicator::check().
  void check();
  /// Calls what may wait for other ranks, before the watchdog's eyes.
  void call(const char* what, const std::function<ncclResult_t()>& function);

 private:
  Options options_;
  int rank_ = 0;
  int size_;
  std::shared_ptr<NcclComms> comms_ = std::make_shared<NcclComms>();
  std::vector<std::unique_ptr<OwnStream>> streams_;  // by Channel
  std::vector<std::weak_ptr<NcclGroup>> parts_;      // split from this one
  Unwinding unwinding_;
  Watchdog watchdog_;
};

}  // namespace tessera
