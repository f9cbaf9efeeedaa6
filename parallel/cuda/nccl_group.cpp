#include "parallel/cuda/nccl_group.h"

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <fmt/format.h>

#include <map>
#include <utility>

#include "parallel/check.h"

namespace tessera {
namespace {

/// Streams that have been given back, by device.
struct IdleStreams {
  std::mutex mutex;
  std::multimap<c10::DeviceIndex, c10::cuda::CUDAStream> streams;
};

// Never destroyed: a group may be, after this file's statics.
IdleStreams& idle_streams() {
  static auto* const idle = new IdleStreams;
  return *idle;
}

c10::cuda::CUDAStream take_stream(c10::DeviceIndex device) {
  {
    IdleStreams& idle = idle_streams();
    const std::lock_guard lock(idle.mutex);
    if (const auto found = idle.streams.find(device); found != idle.streams.end()) {
      return idle.streams.extract(found).mapped();
    }
  }
  const c10::cuda::CUDAGuard guard(device);
  int lowest = 0, highest = 0;
  C10_CUDA_CHECK(cudaDeviceGetStreamPriorityRange(&lowest, &highest));
  cudaStream_t stream = nullptr;
  C10_CUDA_CHECK(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, highest));
  return c10::cuda::getStreamFromExternal(stream, device);
}

/// A call of the host's that may wait for other ranks: done once it has returned.
class HostCall : public Watched {
 public:
  using Watched::Watched;
  bool finished() override { return true; }
};

WatchdogOptions watchdog_options(const NcclGroup::Options& options, int size,
                                 const std::shared_ptr<NcclComms>& comms) {
  WatchdogOptions result;
  result.group = fmt::format("{} GPUs", size);
  result.time_limit = options.time_limit;
  result.enter = [device = options.device.index()] { c10::cuda::set_device(device); };
  result.problem = [comms] { return comms->problem(); };
  result.abort = [comms, enter = result.enter] {
    enter();
    comms->abort();
  };
  return result;
}

ncclConfig_t split_config() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.splitShare = channel_order == ChannelOrder::shared ? 1 : 0;
  return config;
}

}  // namespace

void check_nccl(ncclResult_t status, const char* what) {
  if (status != ncclSuccess && status != ncclInProgress)
    throw_foreign("NCCL", what, ncclGetErrorString(status));
}

OwnStream::OwnStream(c10::DeviceIndex device) : stream_(take_stream(device)) {}
OwnStream::~OwnStream() {
  IdleStreams& idle = idle_streams();
  const std::lock_guard lock(idle.mutex);
  idle.streams.emplace(stream_.device_index(), stream_);
}

NcclComms::~NcclComms() {
  if (aborted_ || unwinding_) return;
  for (const ncclComm_t comm : comms_) ncclCommDestroy(comm);
}

void NcclComms::add(ncclComm_t comm) {
  const std::lock_guard lock(mutex_);
  comms_.push_back(comm);
}

std::string NcclComms::problem() const {
  const std::lock_guard lock(mutex_);
  if (aborted_) return "aborted";
  for (const ncclComm_t comm : comms_) {
    ncclResult_t status = ncclSuccess;
    check_nccl(ncclCommGetAsyncError(comm, &status), "ncclCommGetAsyncError");
    if (status != ncclSuccess && status != ncclInProgress) return ncclGetErrorString(status);
  }
  return "";
}

void NcclComms::abort() {
  std::vector<ncclComm_t> comms;
  {
    const std::lock_guard lock(mutex_);
    aborted_ = true;
    comms = comms_;
  }
  for (const ncclComm_t comm : comms) ncclCommAbort(comm);
}

std::vector<ncclComm_t> NcclComms::release() {
  const std::lock_guard lock(mutex_);
  return aborted_ ? std::vector<ncclComm_t>() : std::exchange(comms_, {});
}

NcclGroup::NcclGroup(const Options& options, int size)
    : options_(options), size_(size), watchdog_(watchdog_options(options, size, comms_)) {}

NcclGroup::~NcclGroup() {
  if (unwinding_) return;
  const auto watched = std::make_shared<HostCall>("ncclCommDestroy");
  watchdog_.add(watched);
  for (const ncclComm_t comm : comms_->release()) ncclCommDestroy(comm);
  watched->set_issued();
}

void NcclGroup::add_channels(ncclComm_t collective) {
  comms_->add(collective);
  check_nccl(ncclCommUserRank(collective, &rank_), "ncclCommUserRank");
  const int channels = num_channels(options_.use);
  for (int i = 0; i < channels; ++i) streams_.push_back(std::make_unique<OwnStream>(options_.device.index()));
  for (int i = 1; i < channels; ++i) {
    ncclConfig_t config = split_config();
    ncclComm_t comm = nullptr;
    call("ncclCommSplit", [&] { return ncclCommSplit(collective, 0, rank_, &comm, &config); });
    comms_->add(comm);
  }
}

std::shared_ptr<NcclGroup> NcclGroup::split(int color, int key, GroupUse use) {
  ncclConfig_t config = split_config();
  ncclComm_t comm = nullptr;
  call("ncclCommSplit",
       [&] { return ncclCommSplit(comms_->of(Channel::collective), color, key, &comm, &config); });
  int members = 0;
  check_nccl(ncclCommCount(comm, &members), "ncclCommCount");
  if (members == 1) {
    check_nccl(ncclCommDestroy(comm), "ncclCommDestroy");
    return nullptr;
  }
  auto part = std::make_shared<NcclGroup>(Options{options_.device, options_.time_limit, use}, members);
  part->add_channels(comm);
  std::erase_if(parts_, [](const auto& each) { return each.expired(); });
  parts_.push_back(part);
  return part;
}

void NcclGroup::check() {
  for (const auto& stream : streams_) stream->get().synchronize();
  watchdog_.throw_error();
  if (const std::string problem = comms_->problem(); !problem.empty()) {
    throw std::runtime_error(fmt::format("messages among {} GPUs: {}", size_, problem));
  }
  for (const auto& each : parts_) {
    if (const auto part = each.lock()) part->check();
  }
}

void NcclGroup::call(const char* what, const std::function<ncclResult_t()>& function) {
  const auto watched = std::make_shared<HostCall>(what);
  watchdog_.add(watched);
  const ncclResult_t status = function();
  watchdog_.throw_error();
  watched->set_issued();
  check_nccl(status, what);
}

}  // namespace tessera
