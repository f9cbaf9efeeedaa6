// NCCL as a transport, and what else the program asks of GPUs: the plug-in's entry.
#include <ATen/Functions.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>

#include <cstdlib>

#include "parallel/cuda/host_memory.h"
#include "parallel/cuda/nccl_group.h"
#include "parallel/plugin.h"

namespace tessera {
namespace {
using Kind = Operation::Kind;

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

/// The events at the ends of an operation.
struct Span : Watched {
  using Watched::Watched;
  bool finished() override { return end.query(); }
  at::cuda::CUDAEvent begin{cudaEventDefault};
  at::cuda::CUDAEvent end{cudaEventDefault};
};

/// wait() makes the current stream wait, not the host, as GPU work goes; a barrier's makes the host wait.
class NcclWork : public Work::State {
 public:
  NcclWork(std::shared_ptr<NcclGroup> group, std::shared_ptr<Span> span, bool host_waits)
      : group_(std::move(group)), span_(std::move(span)), host_waits_(host_waits) {}
  bool done() override { return span_->end.query(); }
  void wait() override {
    group_->watchdog().throw_error();
    span_->end.block(c10::cuda::getCurrentCUDAStream(group_->options().device.index()));
    if (!host_waits_) return;
    span_->end.synchronize();
    group_->watchdog().throw_error();
  }
  double seconds() override { return done() ? span_->begin.elapsed_time(span_->end) * 1e-3 : 0; }

 private:
  std::shared_ptr<NcclGroup> group_;
  std::shared_ptr<Span> span_;
  bool host_waits_;
};

class NcclTransport : public Transport {
 public:
  explicit NcclTransport(std::shared_ptr<NcclGroup> group) : group_(std::move(group)) {}
  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  at::Device device() const override { return group_->options().device; }

  std::shared_ptr<Work::State> start(Operation operation) override {
    group_->watchdog().throw_error();
    const c10::cuda::CUDAGuard guard(device());
    if (operation.traffic) operation.traffic->add(bytes_sent(operation, size()));
    if (operation.kind == Kind::barrier) {
      operation.output = at::zeros({1}, at::TensorOptions().dtype(at::kInt).device(device()));
    }
    const Channel channel = channel_of(operation, rank());
    auto span = std::make_shared<Span>(describe(operation));
    group_->watchdog().add(span);
    try {
      run(operation, channel, *span);
    } catch (const std::exception&) {
      group_->watchdog().throw_error();  // what it has seen is the cause
      throw;
    }
    span->set_issued();
    return std::make_shared<NcclWork>(group_, std::move(span), operation.kind == Kind::barrier);
  }

  std::shared_ptr<Transport> split(int color, int key, GroupUse use) override {
    const c10::cuda::CUDAGuard guard(device());
    auto part = group_->split(color, key, use);
    return part ? std::make_shared<NcclTransport>(std::move(part)) : nullptr;
  }
  void check() override { group_->check(); }

 private:
  // Between the ranks' first operations of a kind NCCL connects them: the host waits for the others here.
  void run(const Operation& operation, Channel channel, Span& span) const {
    const c10::cuda::CUDAStream stream = group_->stream(channel);
    at::cuda::CUDAEvent ready;
    ready.record(c10::cuda::getCurrentCUDAStream());
    ready.block(stream);
    span.begin.record(stream);
    issue(operation, group_->comm(channel), stream.stream());
    span.end.record(stream);
    for (const at::Tensor& tensor : {operation.input, operation.output}) {
      if (tensor.defined())
        c10::cuda::CUDACachingAllocator::recordStream(tensor.storage().data_ptr(), stream);
    }
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

  std::shared_ptr<NcclGroup> group_;
};

std::shared_ptr<Transport> make_transport(const GpuPlugin::TransportOptions& options) {
  const at::Device device(at::kCUDA, static_cast<at::DeviceIndex>(options.device));
  const c10::cuda::CUDAGuard guard(device);
  ncclUniqueId id{};
  if (options.rank == 0) check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
  options.broadcast(&id, sizeof(id));
  auto group = std::make_shared<NcclGroup>(NcclGroup::Options{device, options.time_limit}, options.size);
  ncclComm_t comm = nullptr;
  group->call("ncclCommInitRank (each rank needs a GPU of its own)",
              [&] { return ncclCommInitRank(&comm, options.size, id, options.rank); });
  group->add_channels(comm);
  return std::make_shared<NcclTransport>(std::move(group));
}

std::string device_name(int device) { return at::cuda::getDeviceProperties(device)->name; }

// For who plans too, before CUDA is started: without tensors there is no allocator to ask, and none is
// needed.
GpuPlugin::Memory memory(int device) {
  const auto total = static_cast<int64_t>(at::cuda::getDeviceProperties(device)->totalGlobalMem);
  auto* allocator = c10::cuda::CUDACachingAllocator::get();
  if (!allocator->initialized()) return {0, total};
  const auto index = static_cast<c10::DeviceIndex>(device);
  const int64_t peak = allocator->getDeviceStats(index).allocated_bytes[0].peak;
  allocator->resetPeakStats(index);
  return {peak, total};
}
}  // namespace
}  // namespace tessera

extern "C" void tessera_cuda_register(tessera::GpuPlugin& plugin) {
  // Read when CUDA starts. With fewer queues than streams, an operation that waits holds up those of other
  // streams.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", /*replace=*/0);
  plugin.device_count = [] { return static_cast<int>(c10::cuda::device_count()); };
  plugin.device_name = tessera::device_name;
  plugin.set_device = [](int device) { c10::cuda::set_device(static_cast<c10::DeviceIndex>(device)); };
  plugin.memory = tessera::memory;
  plugin.make_transport = tessera::make_transport;
  tessera::offer_host_memory(plugin);
}
