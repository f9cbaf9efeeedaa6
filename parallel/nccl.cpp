// The GPU plug-in's part of parallel/: NCCL as a transport, and what else the program asks of GPUs.
#include <ATen/Functions.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <fmt/format.h>
#include <nccl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <deque>
#include <mutex>
#include <thread>

#include "parallel/check.h"
#include "parallel/cuda/host_memory.h"
#include "parallel/plugin.h"
#include "parallel/transport.h"

namespace tessera {
namespace {
using Kind = Operation::Kind;
using std::chrono::steady_clock;

void check_nccl(ncclResult_t status, const char* what) {
  if (status != ncclSuccess && status != ncclInProgress)
    throw_foreign("NCCL", what, ncclGetErrorString(status));
}

ncclDataType_t nccl_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return ncclFloat32;
    case at::kDouble:
      return ncclFloat64;
    case at::kBFloat16:
      return ncclBfloat16;
    case at::kHalf:
      return ncclFloat16;
    case at::kInt:
      return ncclInt32;
    case at::kLong:
      return ncclInt64;
    case at::kByte:
      return ncclUint8;
    default:
      throw std::logic_error("a type that NCCL does not know");
  }
}

ncclRedOp_t nccl_reduction(Reduction reduction) {
  return reduction == Reduction::sum ? ncclSum : reduction == Reduction::max ? ncclMax : ncclMin;
}

/// What a rank sends to the others in NCCL's rings. (What NCCL does on its own with hosts or switches that
/// add is not visible.)
int64_t bytes_sent(const Operation& operation, int size) {
  const auto bytes = [](const at::Tensor& tensor) {
    return tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0;
  };
  switch (operation.kind) {
    case Kind::all_reduce:
      return 2 * bytes(operation.output) * (size - 1) / size;
    case Kind::reduce_scatter:
      return bytes(operation.output) * (size - 1);
    case Kind::all_gather:
      return bytes(operation.input) * (size - 1);
    case Kind::broadcast:  // all but the last pass it on
      return bytes(operation.output) * (size - 1) / size;
    case Kind::all_to_all:
      return bytes(operation.input) / size * (size - 1);
    case Kind::send:
      return bytes(operation.input);
    default:
      return 0;
  }
}

/// The events at the ends of an operation, and what to call it.
struct Span {
  at::cuda::CUDAEvent begin{cudaEventDefault};
  at::cuda::CUDAEvent end{cudaEventDefault};
  std::string what;
  steady_clock::time_point started = steady_clock::now();
};

/// NCCL carries out a communicator's operations one after the other, a send until its receive: three
/// communicators keep messages up and down the ranks from waiting for each other or for collectives.
enum Channel { collective, up, down, num_channels };

/// What an operation's handle, its transport and the watchdog share.
struct Group {
  std::array<ncclComm_t, num_channels> comms{};
  std::array<c10::cuda::CUDAStream, num_channels> streams;
  int rank = 0;
  int size = 1;
  at::Device device;
  std::chrono::milliseconds time_limit;
  std::mutex mutex;
  std::deque<std::shared_ptr<Span>> under_way;  // guarded by mutex
  std::string error;                            // guarded by mutex

  Group(at::Device device_, std::chrono::milliseconds time_limit_)
      : streams{c10::cuda::getStreamFromPool(true, device_.index()),
                c10::cuda::getStreamFromPool(true, device_.index()),
                c10::cuda::getStreamFromPool(true, device_.index())},
        device(device_),
        time_limit(time_limit_) {}
  ~Group() {
    if (!error.empty()) return;  // aborted
    for (const ncclComm_t comm : comms) {
      if (comm) ncclCommDestroy(comm);
    }
  }
  void throw_error() {
    const std::lock_guard lock(mutex);
    if (!error.empty()) throw std::runtime_error(error);
  }

  // Called by the watchdog from time to time. Aborting lets the host out of a wait for the device.
  void watch() {
    const std::lock_guard lock(mutex);
    while (!under_way.empty() && under_way.front()->end.query()) under_way.pop_front();
    if (!error.empty()) return;
    ncclResult_t status = ncclSuccess;
    for (const ncclComm_t comm : comms) {
      if (status == ncclSuccess) ncclCommGetAsyncError(comm, &status);
    }
    const bool late = !under_way.empty() && steady_clock::now() - under_way.front()->started > time_limit;
    if (!late && (status == ncclSuccess || status == ncclInProgress)) return;
    char host[256] = "";
    gethostname(host, sizeof(host) - 1);
    error = fmt::format("{} among {} GPUs: rank {} ({}) {}",
                        under_way.empty() ? "NCCL" : under_way.front()->what, size, rank, host,
                        late ? fmt::format("has waited {} s for the others (limit: TESSERA_TIMEOUT_SECONDS)",
                                           time_limit.count() / 1000)
                             : fmt::format("lost them: {}", ncclGetErrorString(status)));
    for (const ncclComm_t comm : comms) ncclCommAbort(comm);
  }
};

/// Watches one group from a thread of its own.
class Watchdog {
 public:
  explicit Watchdog(std::shared_ptr<Group> group)
      : thread_([this, group = std::move(group)] {
          const c10::cuda::CUDAGuard guard(group->device);
          while (!stop_) {
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
            group->watch();
          }
        }) {}
  ~Watchdog() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

/// wait() makes the current stream wait, not the host, as GPU work goes; a barrier's makes the host wait.
class NcclWork : public Work::State {
 public:
  NcclWork(std::shared_ptr<Group> group, std::shared_ptr<Span> span, bool host_waits)
      : group_(std::move(group)), span_(std::move(span)), host_waits_(host_waits) {}
  bool done() override { return span_->end.query(); }
  void wait() override {
    group_->throw_error();
    span_->end.block(c10::cuda::getCurrentCUDAStream(group_->device.index()));
    if (!host_waits_) return;
    span_->end.synchronize();
    group_->throw_error();
  }
  double seconds() override { return done() ? span_->begin.elapsed_time(span_->end) * 1e-3 : 0; }

 private:
  std::shared_ptr<Group> group_;
  std::shared_ptr<Span> span_;
  bool host_waits_;
};

class NcclTransport : public Transport {
 public:
  explicit NcclTransport(std::shared_ptr<Group> group) : group_(std::move(group)), watchdog_(group_) {}
  int rank() const override { return group_->rank; }
  int size() const override { return group_->size; }
  at::Device device() const override { return group_->device; }

  std::shared_ptr<Work::State> start(Operation operation) override {
    group_->throw_error();
    const c10::cuda::CUDAGuard guard(group_->device);
    if (operation.traffic) operation.traffic->add(bytes_sent(operation, size()));
    if (operation.kind == Kind::barrier) {
      operation.output = at::zeros({1}, at::TensorOptions().dtype(at::kInt).device(group_->device));
    }
    const Channel channel = channel_of(operation);
    const c10::cuda::CUDAStream stream = group_->streams[channel];
    at::cuda::CUDAEvent ready;
    ready.record(c10::cuda::getCurrentCUDAStream());
    ready.block(stream);
    auto span = std::make_shared<Span>();
    span->what = describe(operation);
    span->begin.record(stream);
    issue(operation, group_->comms[channel], stream.stream());
    span->end.record(stream);
    for (const at::Tensor& tensor : {operation.input, operation.output}) {
      if (tensor.defined())
        c10::cuda::CUDACachingAllocator::recordStream(tensor.storage().data_ptr(), stream);
    }
    const std::lock_guard lock(group_->mutex);
    group_->under_way.push_back(span);
    return std::make_shared<NcclWork>(group_, std::move(span), operation.kind == Kind::barrier);
  }

  std::shared_ptr<Transport> split(int color, int key) override;

 private:
  Channel channel_of(const Operation& operation) const {
    if (operation.kind == Kind::send) return operation.peer > rank() ? up : down;
    if (operation.kind == Kind::receive) return operation.peer > rank() ? down : up;
    return collective;
  }

  void issue(const Operation& operation, ncclComm_t comm, cudaStream_t stream) const {
    const at::Tensor& any = operation.output.defined() ? operation.output : operation.input;
    const ncclDataType_t type = nccl_type(any.scalar_type());
    const ncclRedOp_t how = nccl_reduction(operation.reduction);
    void* output = operation.output.defined() ? operation.output.data_ptr() : nullptr;
    const void* input = operation.input.defined() ? operation.input.const_data_ptr() : output;
    const size_t count = any.numel();
    const int peer = operation.peer;
    switch (operation.kind) {
      case Kind::barrier:
      case Kind::all_reduce:
        check_nccl(ncclAllReduce(output, output, count, type, how, comm, stream), "all-reduce");
        break;
      case Kind::reduce_scatter:
        check_nccl(ncclReduceScatter(input, output, count, type, how, comm, stream), "reduce-scatter");
        break;
      case Kind::all_gather:
        check_nccl(ncclAllGather(input, output, operation.input.numel(), type, comm, stream), "all-gather");
        break;
      case Kind::broadcast:
        check_nccl(ncclBroadcast(output, output, count, type, peer, comm, stream), "broadcast");
        break;
      case Kind::send:
        check_nccl(ncclSend(input, count, type, peer, comm, stream), "send");
        break;
      case Kind::receive:
        check_nccl(ncclRecv(output, count, type, peer, comm, stream), "receive");
        break;
      case Kind::all_to_all:
        exchange(operation, type, comm, stream);
        break;
    }
  }

  void exchange(const Operation& operation, ncclDataType_t type, ncclComm_t comm, cudaStream_t stream) const {
    const int64_t block = operation.input.numel() / size();
    const int64_t bytes = block * static_cast<int64_t>(operation.input.element_size());
    const char* input = static_cast<const char*>(operation.input.const_data_ptr());
    char* output = static_cast<char*>(operation.output.data_ptr());
    check_nccl(ncclGroupStart(), "all-to-all");
    for (int i = 0; i < size(); ++i) {
      check_nccl(ncclSend(input + i * bytes, block, type, i, comm, stream), "all-to-all");
      check_nccl(ncclRecv(output + i * bytes, block, type, i, comm, stream), "all-to-all");
    }
    check_nccl(ncclGroupEnd(), "all-to-all");
  }

  std::shared_ptr<Group> group_;
  Watchdog watchdog_;
};

// The channels of messages beside `group`'s collective one.
void add_channels(Group& group) {
  const ncclComm_t comm = group.comms[collective];
  check_nccl(ncclCommUserRank(comm, &group.rank), "ncclCommUserRank");
  check_nccl(ncclCommCount(comm, &group.size), "ncclCommCount");
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.splitShare = 1;
  for (const Channel channel : {up, down}) {
    check_nccl(ncclCommSplit(comm, 0, group.rank, &group.comms[channel], &config), "ncclCommSplit");
  }
}

std::shared_ptr<Transport> NcclTransport::split(int color, int key) {
  const c10::cuda::CUDAGuard guard(group_->device);
  auto group = std::make_shared<Group>(group_->device, group_->time_limit);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.splitShare = 1;
  check_nccl(ncclCommSplit(group_->comms[collective], color, key, &group->comms[collective], &config),
             "ncclCommSplit");
  int members = 0;
  check_nccl(ncclCommCount(group->comms[collective], &members), "ncclCommCount");
  if (members == 1) return nullptr;
  add_channels(*group);
  return std::make_shared<NcclTransport>(std::move(group));
}

std::shared_ptr<Transport> make_transport(const GpuPlugin::TransportOptions& options) {
  const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(options.device));
  const c10::cuda::CUDAGuard guard(device);
  ncclUniqueId id{};
  if (options.rank == 0) check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
  options.broadcast(&id, sizeof(id));
  auto group = std::make_shared<Group>(device, options.time_limit);
  check_nccl(ncclCommInitRank(&group->comms[collective], options.size, id, options.rank), "ncclCommInitRank");
  add_channels(*group);
  return std::make_shared<NcclTransport>(std::move(group));
}

std::string device_name(int device) {
  cudaDeviceProp properties{};
  C10_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  return properties.name;
}

GpuPlugin::Memory memory(int device) {
  size_t available = 0;
  size_t total = 0;
  const c10::cuda::CUDAGuard guard(static_cast<c10::DeviceIndex>(device));
  C10_CUDA_CHECK(cudaMemGetInfo(&available, &total));
  auto* allocator = c10::cuda::CUDACachingAllocator::get();
  const auto index = static_cast<c10::DeviceIndex>(device);
  const int64_t peak = allocator->getDeviceStats(index).allocated_bytes[0].peak;
  allocator->resetPeakStats(index);
  return {peak, static_cast<int64_t>(total)};
}
}  // namespace
}  // namespace tessera

extern "C" void tessera_cuda_register(tessera::GpuPlugin& plugin) {
  plugin.device_count = [] { return static_cast<int>(c10::cuda::device_count()); };
  plugin.device_name = tessera::device_name;
  plugin.set_device = [](int device) { c10::cuda::set_device(static_cast<c10::DeviceIndex>(device)); };
  plugin.memory = tessera::memory;
  plugin.make_transport = tessera::make_transport;
  tessera::offer_host_memory(plugin);
}
