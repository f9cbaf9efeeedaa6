#include "parallel/shard.h"

#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "parallel/pinned_memory.h"
#include "parallel/record.h"

namespace tessera {
namespace {

constexpr int64_t aligned_elements = 64;  // parameters begin on cache lines, whatever their type

// Of pieces that correspond, flat and dense: what ATen copies with one kernel, however many there are.
using Tensors = std::vector<at::Tensor>;

int64_t rows_of(const at::Tensor& tensor) { return tensor.dim() == 0 ? 1 : tensor.size(0); }

/// Makes `tensor` look at `memory` (null: at nothing). Its storage stays the same object, so that all views
/// and what autograd has kept see the change.
void look_at(const at::Tensor& tensor, void* memory) {
  tensor.storage().unsafeGetStorageImpl()->set_data_ptr_noswap(at::DataPtr(memory, tensor.device()));
}

/// The identity, whose backward calls `action` first.
at::Tensor with_backward(const at::Tensor& x, std::function<void()> action) {
  if (!must_record({x})) return x;
  at::Tensor y = x.detach();
  record({x}, {&y}, [action = std::move(action)](const BackwardNode::Gradients& gradients, BackwardNode&) {
    action();
    return gradients;
  });
  return y;
}

/// Copies, in one piece of memory: ATen adds lists with one kernel only where their types are alike.
Tensors converted(const Tensors& pieces, at::ScalarType type) {
  std::vector<int64_t> sizes;
  for (const at::Tensor& piece : pieces) sizes.push_back(piece.numel());
  const int64_t total = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  Tensors copies = at::empty({total}, pieces.front().options().dtype(type)).split_with_sizes(sizes);
  at::_foreach_copy_(copies, pieces);
  return copies;
}

}  // namespace

void Shard::Log::wait(const Work& work, const at::Tensor& message) {
  const auto start = std::chrono::steady_clock::now();
  work.wait();
  exposed += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  bytes += static_cast<int64_t>(message.nbytes());
  works.push_back(work);
}

// Asks for the seconds late: on a GPU the end of waiting is not the end of the message.
MessageStatistics Shard::Log::statistics(bool gather) const {
  MessageStatistics result{bytes, 0, exposed, gather};
  for (const Work& work : works) result.seconds += work.seconds();
  return result;
}

Shard::Shard(const std::vector<UnitParameter>& parameters, ShardOptions options)
    : options_(std::move(options)), ranks_(options_.shard.size()) {
  const at::NoGradGuard no_grad;
  sum_type_ = at::promote_types(options_.working, at::kFloat);
  reduce_type_ = options_.reduce_dtype == at::ScalarType::Undefined ? sum_type_ : options_.reduce_dtype;
  size_t num_units = 1;
  for (const auto& parameter : parameters) num_units = std::max(num_units, parameter.unit + 1);
  units_.resize(num_units);
  parts_.resize(parameters.size());
  for (const bool trained : {true, false}) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (parameters[i].tensor.requires_grad() != trained) continue;
      add_member(units_[parameters[i].unit], parameters[i], i);
    }
  }
  const auto on_device = at::TensorOptions().device(options_.shard.device());
  for (Unit& unit : units_) build_unit(unit, on_device);
}

Shard::~Shard() {
  for (const Unit& unit : units_) {
    for (const Member& member : unit.members) look_at(member.tensor, nullptr);
  }
}

void Shard::add_member(Unit& unit, const UnitParameter& parameter, size_t index) {
  Member member{.index = index, .name = parameter.name, .tensor = parameter.tensor};
  const int64_t count = member.tensor.numel();
  member.rows = rows_of(member.tensor);
  member.width = count / std::max<int64_t>(member.rows, 1);
  member.part_rows = (member.rows + ranks_ - 1) / ranks_;
  member.in_part = unit.part;
  member.in_whole = unit.whole;
  unit.part += member.part_rows * member.width;
  unit.whole += (count + aligned_elements - 1) / aligned_elements * aligned_elements;
  if (member.tensor.requires_grad()) {
    unit.trained_part = unit.part;
    ++unit.num_trained;
  }
  unit.chunk = parameter.chunk;
  unit.members.push_back(std::move(member));
}

void Shard::build_unit(Unit& unit, const at::TensorOptions& options) {
  const auto zeros = [&](int64_t size, at::ScalarType type, bool on_host) {
    if (on_host) return host_empty({size}, type, options.device()).zero_();
    return at::zeros({size}, options.dtype(type));
  };
  unit.mine = zeros(unit.part, options_.working, options_.offload == Offload::parameters);
  unit.gradient = at::empty({unit.trained_part}, options.dtype(sum_type_));
  const bool one = options_.working == sum_type_ && options_.offload != Offload::optimizer;
  const at::Tensor masters =
      one ? unit.mine : zeros(unit.trained_part, sum_type_, options_.offload != Offload::none);
  for (const Member& member : unit.members) {
    build_part(unit, member, masters);
    lend(unit, member);
  }
}

void Shard::build_part(const Unit& unit, const Member& member, const at::Tensor& masters) {
  const int64_t first = member.first_row(options_.shard.rank());
  const int64_t rows = member.num_rows(options_.shard.rank());
  std::vector<int64_t> shape = member.tensor.sizes().vec();
  if (!shape.empty()) {
    shape[0] = rows;
  } else if (rows == 0) {
    shape.push_back(0);
  }
  const auto part = [&](const at::Tensor& flat) {
    return flat.narrow(0, member.in_part, rows * member.width).view(shape);
  };
  const bool trained = member.tensor.requires_grad();
  parts_[member.index] = {first, part(unit.mine), part(trained ? masters : unit.mine), trained};
}

/// The module's tensor becomes of the right type and place, its memory to be lent.
void Shard::lend(const Unit& unit, const Member& member) const {
  at::Tensor without_memory = at::empty({0}, unit.gradient.options().dtype(options_.working));
  without_memory.unsafeGetTensorImpl()->set_sizes_contiguous(member.tensor.sizes());
  without_memory.storage().unsafeGetStorageImpl()->set_nbytes(member.tensor.numel() *
                                                              without_memory.element_size());
  at::Tensor(member.tensor).set_data(without_memory);
}

// ---- parameters

void Shard::start_gather(Unit& unit) {
  if (unit.part == 0 || unit.gathered.defined()) return;
  if (unit.memory.defined() && !unit.stale) return;
  // Frozen ones are the last, and stay where they are kept.
  const int64_t part = unit.memory.defined() && !unit.frozen_stale ? unit.trained_part : unit.part;
  unit.sent = unit.mine.narrow(0, 0, part).to(options_.shard.device(), /*non_blocking=*/true);
  unit.gathered = at::empty({ranks_ * part}, unit.sent.options());
  unit.gather = options_.shard.all_gather_async(unit.gathered, unit.sent);
}

/// Those under way would bring old values. They may still read `mine`, which is about to change.
void Shard::settle() {
  for (Unit& unit : units_) {
    if (!unit.gathered.defined()) continue;
    unit.gathers.wait(unit.gather, unit.gathered);
    unit.gathered.reset();
    unit.sent.reset();
  }
}

void Shard::need(size_t index) {
  Unit& unit = units_[index];
  if (unit.part == 0 || (unit.memory.defined() && !unit.stale)) return;
  start_gather(unit);
  unit.gathers.wait(unit.gather, unit.gathered);
  place(unit);
}

/// Starts what comes next, in the direction of travel.
void Shard::prefetch(size_t from, int direction) {
  for (int64_t step = 1; step <= options_.prefetch; ++step) {
    const int64_t next = static_cast<int64_t>(from) + direction * step;
    if (next >= 1 && next < static_cast<int64_t>(units_.size())) start_gather(units_[next]);
  }
}

/// From parts by rank to whole parameters.
void Shard::place(Unit& unit) {
  const at::NoGradGuard no_grad;
  if (!unit.memory.defined()) unit.memory = at::empty({unit.whole}, unit.gathered.options());
  const int64_t part = unit.gathered.numel() / ranks_;
  auto* const memory = static_cast<std::byte*>(unit.memory.data_ptr());
  Tensors whole, parts;
  for (const Member& member : unit.members) {
    if (member.in_part >= part) break;
    for (int rank = 0; rank < ranks_; ++rank) {
      const int64_t count = member.size(rank);
      if (count == 0) continue;
      whole.push_back(unit.memory.narrow(0, member.in_whole + member.first(rank), count));
      parts.push_back(unit.gathered.narrow(0, rank * part + member.in_part, count));
    }
    look_at(member.tensor, memory + member.in_whole * unit.memory.element_size());
  }
  if (!whole.empty()) at::_foreach_copy_(whole, parts);
  unit.gathered.reset();
  unit.sent.reset();
  unit.stale = unit.frozen_stale = false;
}

void Shard::release(Unit& unit) {
  for (const Member& member : unit.members) look_at(member.tensor, nullptr);
  unit.memory.reset();
}

void Shard::parameters_loaded() {
  for (Unit& unit : units_) unit.stale = unit.frozen_stale = true;
  parameters_changed();
}

void Shard::parameters_changed() {
  settle();
  for (Unit& unit : units_) {
    unit.stale = unit.stale || unit.num_trained > 0;
    if (options_.zero < 3) start_gather(unit);
  }
  start_gather(units_[0]);
  prefetch(0, 1);
}

at::Tensor Shard::enter(size_t index, const at::Tensor& hidden) {
  need(0);
  need(index);
  prefetch(index, 1);
  return with_backward(hidden, [this, index] {
    collect(units_[index]);
    if (!keeps(units_[index])) release(units_[index]);
  });
}

at::Tensor Shard::leave(size_t index, const at::Tensor& hidden) {
  const bool training = must_record({hidden});
  // The last block's backward comes at once.
  const bool last = index + 1 == units_.size();
  if (!keeps(units_[index]) && !(training && last)) release(units_[index]);
  return with_backward(hidden, [this, index] {
    need(index);
    prefetch(index, -1);
  });
}

// ---- gradients

void Shard::begin_step() {
  for (Unit& unit : units_) {
    unit.has_gradient = false;
    unit.gathers = unit.reduces = {};
    for (Member& member : unit.members) {
      member.touched = false;
      member.tensor.mutable_grad().reset();
    }
  }
}

void Shard::begin_micro_step(bool last) {
  last_ = last;
  for (Unit& unit : units_) unit.collected = false;
}

/// Gradients from whole parameters to parts by rank, added to what is there. Elements of parts that no row
/// fills are zero.
void Shard::pack(Unit& unit) {
  const at::NoGradGuard no_grad;
  const bool fresh = !unit.message.defined();
  // What is added up here over micro-steps (stage 1) is converted once, when it leaves.
  const at::ScalarType type = options_.zero == 1 ? sum_type_ : reduce_type_;
  if (fresh) unit.message = at::empty({ranks_ * unit.trained_part}, unit.gradient.options().dtype(type));
  Tensors parts, whole, unfilled;
  for (size_t i = 0; i < unit.num_trained; ++i) {
    Member& member = unit.members[i];
    at::Tensor& gradient = member.tensor.mutable_grad();
    member.touched = member.touched || gradient.defined();
    const at::Tensor rows = gradient.defined() ? gradient.reshape({-1}) : at::Tensor();
    gradient.reset();
    for (int rank = 0; rank < ranks_; ++rank) {
      const int64_t begin = rank * unit.trained_part + member.in_part;
      const int64_t filled = rows.defined() ? member.size(rank) : 0, rest = member.part_size() - filled;
      if (fresh && rest > 0) unfilled.push_back(unit.message.narrow(0, begin + filled, rest));
      if (filled == 0) continue;
      parts.push_back(unit.message.narrow(0, begin, filled));
      whole.push_back(rows.narrow(0, member.first(rank), filled));
    }
  }
  if (!unfilled.empty()) at::_foreach_zero_(unfilled);
  if (whole.empty()) return;
  if (fresh) return at::_foreach_copy_(parts, whole);
  at::_foreach_add_(parts, whole.front().scalar_type() == type ? whole : converted(whole, type));
}

/// A unit's backward is over: its gradients leave. Called for the same units in the same order on all ranks,
/// whatever gradients each has.
void Shard::collect(Unit& unit) {
  if (unit.num_trained == 0 || unit.chunk != chunk_ || unit.collected) return;
  if (unit.reduced.defined()) absorb();  // its message of the micro-step before
  unit.collected = true;
  pack(unit);
  if (options_.zero > 1 || last_) reduce(unit);
}

void Shard::reduce(Unit& unit) {
  const at::NoGradGuard no_grad;
  if (unit.message.scalar_type() != reduce_type_) unit.message = unit.message.to(reduce_type_);
  unit.reduced = at::empty({unit.trained_part}, unit.message.options());
  unit.reduce = options_.shard.reduce_scatter_async(unit.reduced, unit.message);
  unit.is_last = last_;
  reducing_.push_back(&unit);
  absorb(1);  // the unit before: by now it has mostly arrived, and its message makes room
}

void Shard::absorb(size_t keep) {
  for (; reducing_.size() > keep; reducing_.pop_front()) absorb(*reducing_.front());
}

void Shard::absorb(Unit& unit) {
  const at::NoGradGuard no_grad;
  unit.reduces.wait(unit.reduce, unit.message);
  if (unit.has_gradient) {
    unit.gradient.add_(unit.reduced);
  } else {
    unit.gradient.copy_(unit.reduced);
  }
  unit.has_gradient = true;
  unit.message.reset();
  unit.reduced.reset();
  if (unit.is_last) unit.replicate = options_.replicas.all_reduce_async(unit.gradient);
}

void Shard::end_micro_step() {
  // Blocks whose input needs no gradient have not been told that they are done.
  for (size_t i = units_.size(); i-- > 1;) {
    collect(units_[i]);
    if (!keeps(units_[i])) release(units_[i]);
  }
  collect(units_[0]);
  for (const Unit& unit : units_) {
    for (const Member& member : unit.members) {
      if (!member.tensor.grad().defined()) continue;
      throw std::logic_error(member.name +
                             " received a gradient after its unit's were sent: is it used by "
                             "another unit?");
    }
  }
  if (!last_) prefetch(0, 1);
}

std::vector<at::Tensor> Shard::finish() {
  const at::NoGradGuard no_grad;
  absorb();
  settle();
  const std::vector<bool> used = used_anywhere();
  std::vector<at::Tensor> sums(parts_.size());
  for (Unit& unit : units_) {
    if (unit.num_trained > 0 && options_.replicas.size() > 1) {
      unit.reduces.wait(unit.replicate, unit.gradient);
    }
    if (!keeps(unit)) release(unit);
    for (const Member& member : unit.members) {
      const at::Tensor& part = parts_[member.index].working;
      if (!used[member.index]) continue;
      sums[member.index] = unit.gradient.narrow(0, member.in_part, part.numel()).view(part.sizes());
    }
  }
  std::vector<at::Tensor> gradients;
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (parts_[i].trained) gradients.push_back(sums[i]);
  }
  return gradients;
}

std::vector<bool> Shard::used_anywhere() const {
  const at::Tensor flags = at::zeros({static_cast<int64_t>(parts_.size())}, at::kByte);
  for (const Unit& unit : units_) {
    for (const Member& member : unit.members)
      flags.mutable_data_ptr<uint8_t>()[member.index] = member.touched;
  }
  options_.host.all_reduce(flags, Reduction::max);
  const auto* first = flags.const_data_ptr<uint8_t>();
  return std::vector<bool>(first, first + parts_.size());
}

std::vector<MessageStatistics> Shard::statistics() const {
  std::vector<MessageStatistics> all;
  for (const Unit& unit : units_) {
    all.push_back(unit.gathers.statistics(/*gather=*/true));
    all.push_back(unit.reduces.statistics(/*gather=*/false));
  }
  return all;
}

}  // namespace tessera
