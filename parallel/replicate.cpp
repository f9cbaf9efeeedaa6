#include "parallel/replicate.h"

#include <fmt/format.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <unordered_set>

namespace tessera {
namespace {
bool is_16_bit(at::ScalarType type) { return type == at::kBFloat16 || type == at::kHalf; }
}  // namespace

struct Replicate::Hook : torch::autograd::PostAccumulateGradHook {
  Hook(Replicate& owner_, size_t index_) : owner(owner_), index(index_) {}
  void operator()(const at::Tensor&) override { owner.on_gradient(index); }
  Replicate& owner;
  size_t index;
};

Replicate::Replicate(const std::vector<NamedParameter>& parameters, Communicator communicator,
                     ReplicateOptions options)
    : communicator_(std::move(communicator)), options_(std::move(options)) {
  std::unordered_set<const void*> seen;
  for (const NamedParameter& parameter : parameters) {
    if (!parameter.tensor.requires_grad() || !seen.insert(parameter.tensor.unsafeGetTensorImpl()).second)
      continue;
    const at::ScalarType type = parameter.tensor.scalar_type();
    Slot slot;
    slot.type = options_.accumulate_fp32 && is_16_bit(type) ? at::kFloat : type;
    const bool alone = communicator_.size() == 1;
    if (!alone || slot.type != type) {
      torch::autograd::impl::set_post_acc_grad_hooks(parameter.tensor,
                                                     std::make_unique<Hook>(*this, slots_.size()));
    }
    parameters_.push_back(parameter);
    slots_.push_back(std::move(slot));
  }
  if (communicator_.size() == 1) return;
  // Backward reaches the last layers first: a fair guess until the first step has shown the order.
  std::vector<int64_t> order;
  for (size_t i = parameters_.size(); i-- > 0;) order.push_back(static_cast<int64_t>(i));
  build_buckets(order);
}

Replicate::~Replicate() {
  for (const auto& parameter : parameters_) {
    torch::autograd::impl::set_post_acc_grad_hooks(parameter.tensor, nullptr);
  }
}

void Replicate::build_buckets(const std::vector<int64_t>& order) {
  buckets_.clear();
  std::map<at::ScalarType, size_t> open;  // the bucket of each type that still takes gradients
  std::vector<int64_t> counts;
  for (const int64_t i : order) {
    Slot& slot = slots_[i];
    const int64_t count = parameters_[i].tensor.numel();
    const int64_t most = options_.bucket_bytes / static_cast<int64_t>(c10::elementSize(slot.type));
    const auto found = open.find(slot.type);
    if (found == open.end() || counts[found->second] + count > most) {
      open[slot.type] = buckets_.size();
      buckets_.emplace_back();
      counts.push_back(0);
    }
    slot.bucket = open[slot.type];
    counts[slot.bucket] += count;
    buckets_[slot.bucket].slots.push_back(i);
  }
  for (size_t b = 0; b < buckets_.size(); ++b) {
    Bucket& bucket = buckets_[b];
    const Slot& first = slots_[bucket.slots.front()];
    const auto options =
        parameters_[bucket.slots.front()].tensor.options().dtype(first.type).requires_grad(false);
    bucket.flat = at::empty({counts[b]}, options);
    int64_t offset = 0;
    for (const size_t i : bucket.slots) {
      const at::Tensor& tensor = parameters_[i].tensor;
      slots_[i].sum = bucket.flat.narrow(0, offset, tensor.numel()).view(tensor.sizes());
      offset += tensor.numel();
    }
    const bool other_type =
        options_.reduce_dtype != at::ScalarType::Undefined && options_.reduce_dtype != first.type;
    bucket.message = other_type ? at::empty_like(bucket.flat, options_.reduce_dtype) : bucket.flat;
  }
}

void Replicate::begin_step() {
  for (size_t i = 0; i < slots_.size(); ++i) {
    slots_[i].touched = false;
    parameters_[i].tensor.mutable_grad().reset();
  }
  num_micro_steps_ = 0;
}

void Replicate::begin_micro_step(bool last) {
  last_ = last;
  ++num_micro_steps_;
  num_launched_ = 0;
  for (Slot& slot : slots_) slot.fires = 0;
  for (Bucket& bucket : buckets_) bucket.num_ready = 0;
}

void Replicate::on_gradient(size_t index) {
  Slot& slot = slots_[index];
  at::Tensor& gradient = parameters_[index].tensor.mutable_grad();
  if (communicator_.size() == 1) {
    if (last_ && num_micro_steps_ == 1) return;  // autograd's own gradient will do
    if (!slot.sum.defined()) slot.sum = at::empty_like(gradient, slot.type);
    return add(slot, gradient);
  }
  if (slot.bucket < num_launched_) {
    throw std::logic_error(
        fmt::format("{} received a further gradient after its sum was sent: does its use differ "
                    "between steps within recomputed blocks?",
                    parameters_[index].name));
  }
  add(slot, gradient);
  ++slot.fires;
  if (!last_) return;
  if (first_step_) {
    order_.push_back(static_cast<int64_t>(index));
  } else if (slot.fires == slot.expected_fires) {
    ++buckets_[slot.bucket].num_ready;
    launch_ready();
  }
}

void Replicate::add(Slot& slot, at::Tensor& gradient) {
  const at::NoGradGuard no_grad;
  if (slot.touched) {
    slot.sum.add_(gradient);
  } else {
    slot.sum.copy_(gradient);
  }
  slot.touched = true;
  gradient.reset();
}

// In order of the buckets, whatever the order of gradients on this rank: all ranks must start the same
// operations.
void Replicate::launch_ready() {
  while (num_launched_ < buckets_.size() &&
         buckets_[num_launched_].num_ready == buckets_[num_launched_].slots.size()) {
    launch(buckets_[num_launched_++]);
  }
}

void Replicate::launch(Bucket& bucket) {
  const at::NoGradGuard no_grad;
  for (const size_t i : bucket.slots) {
    if (!slots_[i].touched) slots_[i].sum.zero_();
  }
  if (!bucket.message.is_same(bucket.flat)) bucket.message.copy_(bucket.flat);
  bucket.work = communicator_.all_reduce_async(bucket.message);
}

void Replicate::wait(Bucket& bucket) {
  const auto start = std::chrono::steady_clock::now();
  bucket.work.wait();
  bucket.exposed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (!bucket.message.is_same(bucket.flat)) bucket.flat.copy_(bucket.message);
}

std::vector<at::Tensor> Replicate::finish() {
  if (communicator_.size() == 1) return finish_alone();
  const at::NoGradGuard no_grad;
  while (num_launched_ < buckets_.size()) launch(buckets_[num_launched_++]);
  const std::vector<bool> used = used_anywhere();
  for (Bucket& bucket : buckets_) wait(bucket);
  std::vector<at::Tensor> gradients;
  for (size_t i = 0; i < slots_.size(); ++i) gradients.push_back(used[i] ? slots_[i].sum : at::Tensor());
  if (first_step_) learn_order();
  return gradients;
}

std::vector<at::Tensor> Replicate::finish_alone() {
  std::vector<at::Tensor> gradients;
  for (size_t i = 0; i < slots_.size(); ++i) {
    at::Tensor& gradient = parameters_[i].tensor.mutable_grad();
    gradients.push_back(slots_[i].touched ? slots_[i].sum : gradient);
    gradient.reset();
  }
  return gradients;
}

std::vector<bool> Replicate::used_anywhere() {
  const at::Tensor flags = at::zeros({static_cast<int64_t>(slots_.size())}, at::kByte);
  for (size_t i = 0; i < slots_.size(); ++i) flags.mutable_data_ptr<uint8_t>()[i] = slots_[i].touched;
  const Communicator& host = options_.host ? *options_.host : communicator_;
  const at::Tensor everywhere = flags.to(host.device());
  host.all_reduce(everywhere, Reduction::max);
  const at::Tensor result = everywhere.cpu();
  const auto* first = result.const_data_ptr<uint8_t>();
  return std::vector<bool>(first, first + slots_.size());
}

// Gradients just returned lie in the old buckets, which live as long as these tensors do.
void Replicate::learn_order() {
  first_step_ = false;
  std::vector<int64_t> order;
  std::vector<bool> placed(slots_.size());
  for (const auto i : std::vector<int64_t>(order_.rbegin(), order_.rend())) {  // by the last firing
    slots_[i].expected_fires = slots_[i].fires;
    if (!placed[i]) order.push_back(i);
    placed[i] = true;
  }
  std::reverse(order.begin(), order.end());
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (!placed[i]) order.push_back(static_cast<int64_t>(i));
  }
  const at::Tensor agreed = at::tensor(order, at::kLong).to(communicator_.device());
  communicator_.broadcast(agreed, 0);
  const at::Tensor result = agreed.cpu();
  const auto* first = result.const_data_ptr<int64_t>();
  build_buckets({first, first + slots_.size()});
}

std::vector<MessageStatistics> Replicate::statistics() const {
  std::vector<MessageStatistics> all;
  for (const Bucket& bucket : buckets_) {
    all.push_back(
        {static_cast<int64_t>(bucket.message.nbytes()), bucket.work.seconds(), bucket.exposed, false});
  }
  return all;
}

}  // namespace tessera
