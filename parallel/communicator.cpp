#include "parallel/communicator.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include "parallel/transport.h"
#include "parallel/unwinding.h"

namespace tessera {
namespace {
using Kind = Operation::Kind;

const char* kind_name(Kind kind) {
  static const char* const names[] = {"all-reduce", "reduce-scatter", "all-gather", "broadcast",
                                      "send",       "receive",        "all-to-all", "barrier"};
  return names[static_cast<int>(kind)];
}

// Destroyed by an exception it is left as it stands, for good.
std::shared_ptr<Transport> left_by_exceptions(std::shared_ptr<Transport> transport) {
  if (!transport) return nullptr;
  Transport* const itself = transport.get();
  return {itself, [owner = std::move(transport), unwinding = Unwinding()](Transport*) mutable {
            std::shared_ptr<Transport> last = std::move(owner);
            if (unwinding) new std::shared_ptr<Transport>(std::move(last));
          }};
}

// A mistake in our own code, not the user's.
void require(bool holds, const Operation& operation, const std::string& what) {
  if (!holds) throw std::logic_error(fmt::format("{}: {}", describe(operation), what));
}

void check_tensor(const Operation& operation, const at::Tensor& tensor, const Transport& transport) {
  if (!tensor.defined()) return;
  const at::ScalarType type = tensor.scalar_type();
  require(type == at::kFloat || type == at::kDouble || type == at::kBFloat16 || type == at::kHalf ||
              type == at::kInt || type == at::kLong || type == at::kByte,
          operation, fmt::format("no transport sends {}", c10::toString(type)));
  require(tensor.is_contiguous(), operation, "the tensor is not contiguous");
  require(tensor.device().type() == transport.device().type(), operation,
          fmt::format("the tensor lies on {}, the ranks exchange tensors on {}", tensor.device().str(),
                      transport.device().str()));
}

bool point_to_point(const Operation& operation) {
  return operation.kind == Kind::send || operation.kind == Kind::receive;
}

void check_peer(const Operation& operation, int size, int rank) {
  require(operation.peer >= 0 && operation.peer < size, operation,
          fmt::format("there is no rank {} in a group of {}", operation.peer, size));
  require(!point_to_point(operation) || operation.peer != rank, operation, "a rank sends nothing to itself");
  require(operation.tag >= 0 && operation.tag < 8192, operation, "tags are 0 to 8191");
}

void copy_alone(const at::Tensor& output, const at::Tensor& input) {
  if (output.data_ptr() != input.data_ptr()) output.view(-1).copy_(input.view(-1));
}

// `whole` is the tensor that has one block per rank.
void check_blocks(Kind kind, const at::Tensor& whole, const at::Tensor& block, int size) {
  require(whole.numel() == block.numel() * size, {kind, whole, block},
          fmt::format("{} elements are not {} blocks of {}", whole.numel(), size, block.numel()));
}
}  // namespace

std::string describe(const Operation& operation) {
  const at::Tensor& tensor = operation.output.defined() ? operation.output : operation.input;
  std::string text = kind_name(operation.kind);
  if (tensor.defined()) {
    text += fmt::format(" of {} ({:.1f} MiB)", c10::toString(tensor.scalar_type()),
                        static_cast<double>(tensor.nbytes()) / (1 << 20));
  }
  return text;
}

Communicator::Communicator() = default;
Communicator::Communicator(std::shared_ptr<Transport> transport, GroupUse use)
    : transport_(left_by_exceptions(std::move(transport))),
      use_(use),
      traffic_(std::make_shared<TrafficCounter>()) {}

int Communicator::rank() const { return transport_ ? transport_->rank() : 0; }
int Communicator::size() const { return transport_ ? transport_->size() : 1; }
at::Device Communicator::device() const { return transport_ ? transport_->device() : at::Device(at::kCPU); }

Communicator Communicator::split(int color, int key, GroupUse use) const {
  return transport_ ? Communicator(transport_->split(color, key, use), use) : Communicator();
}

Communicator Communicator::subgroup(int color, int key, GroupUse use) const {
  Communicator group = split(color, key, use);
  group.traffic_ = traffic_;
  return group;
}

Traffic Communicator::traffic() const { return traffic_ ? traffic_->read() : Traffic(); }

Communicator Communicator::counted_apart() const {
  if (!transport_) return {};
  Communicator group = *this;
  group.traffic_ = std::make_shared<TrafficCounter>();
  return group;
}

Work Communicator::start(Operation operation) const {
  check_tensor(operation, operation.output, *transport_);
  check_tensor(operation, operation.input, *transport_);
  check_peer(operation, transport_->size(), transport_->rank());
  require(use_ == GroupUse::messages || !point_to_point(operation), operation,
          "the group was made for collectives only");
  if (operation.input.defined() && operation.output.defined()) {
    require(operation.input.scalar_type() == operation.output.scalar_type(), operation,
            "input and output differ in type");
  }
  traffic_->operations.fetch_add(1, std::memory_order_relaxed);
  operation.traffic = traffic_;
  return Work(transport_->start(std::move(operation)));
}

void Communicator::all_reduce(const at::Tensor& tensor, Reduction reduction) const {
  all_reduce_async(tensor, reduction).wait();
}
Work Communicator::all_reduce_async(const at::Tensor& tensor, Reduction reduction) const {
  if (!transport_) return {};
  return start({Kind::all_reduce, tensor, {}, reduction});
}

void Communicator::reduce_scatter(const at::Tensor& output, const at::Tensor& input,
                                  Reduction reduction) const {
  reduce_scatter_async(output, input, reduction).wait();
}
Work Communicator::reduce_scatter_async(const at::Tensor& output, const at::Tensor& input,
                                        Reduction reduction) const {
  check_blocks(Kind::reduce_scatter, input, output, size());
  if (!transport_) return copy_alone(output, input), Work();
  return start({Kind::reduce_scatter, output, input, reduction});
}

void Communicator::all_gather(const at::Tensor& output, const at::Tensor& input) const {
  all_gather_async(output, input).wait();
}
Work Communicator::all_gather_async(const at::Tensor& output, const at::Tensor& input) const {
  check_blocks(Kind::all_gather, output, input, size());
  if (!transport_) return copy_alone(output, input), Work();
  return start({Kind::all_gather, output, input});
}

void Communicator::broadcast(const at::Tensor& tensor, int root) const {
  if (transport_) start({Kind::broadcast, tensor, {}, Reduction::sum, root}).wait();
}

void Communicator::send(const at::Tensor& tensor, int destination, int tag) const {
  send_async(tensor, destination, tag).wait();
}
Work Communicator::send_async(const at::Tensor& tensor, int destination, int tag) const {
  const Operation operation{Kind::send, {}, tensor, Reduction::sum, destination, tag};
  require(transport_ != nullptr, operation, "there is nobody else in a group of one");
  return start(operation);
}

void Communicator::receive(const at::Tensor& tensor, int source, int tag) const {
  receive_async(tensor, source, tag).wait();
}
Work Communicator::receive_async(const at::Tensor& tensor, int source, int tag) const {
  const Operation operation{Kind::receive, tensor, {}, Reduction::sum, source, tag};
  require(transport_ != nullptr, operation, "there is nobody else in a group of one");
  return start(operation);
}

void Communicator::all_to_all(const at::Tensor& output, const at::Tensor& input) const {
  all_to_all_async(output, input).wait();
}
Work Communicator::all_to_all_async(const at::Tensor& output, const at::Tensor& input) const {
  require(output.numel() == input.numel() && input.numel() % size() == 0, {Kind::all_to_all, output, input},
          fmt::format("{} elements do not make {} equal blocks", input.numel(), size()));
  if (!transport_) return copy_alone(output, input), Work();
  return start({Kind::all_to_all, output, input});
}

void Communicator::barrier() const {
  if (transport_) start({}).wait();
}

void Communicator::check() const {
  if (transport_) transport_->check();
}

std::vector<std::string> Communicator::gather_text(const std::string& text) const {
  if (!transport_) return {text};
  const auto options = at::TensorOptions().device(transport_->device());
  const at::Tensor lengths = at::empty({size()}, options.dtype(at::kLong));
  all_gather(lengths, at::full({1}, static_cast<int64_t>(text.size()), options.dtype(at::kLong)));
  const at::Tensor counts = lengths.cpu();
  const int64_t longest = std::max<int64_t>(counts.max().item<int64_t>(), 1);
  const at::Tensor mine = at::zeros({longest}, at::kByte);
  std::copy(text.begin(), text.end(), mine.mutable_data_ptr<uint8_t>());
  const at::Tensor all = at::empty({size(), longest}, options.dtype(at::kByte));
  all_gather(all, mine.to(transport_->device()));
  const at::Tensor bytes = all.cpu();
  std::vector<std::string> texts;
  for (int i = 0; i < size(); ++i) {
    const auto* begin = reinterpret_cast<const char*>(bytes.const_data_ptr<uint8_t>()) + i * longest;
    texts.emplace_back(begin, counts[i].item<int64_t>());
  }
  return texts;
}

}  // namespace tessera
