#include "parallel/schedule.h"

#include <ATen/Functions.h>

#include <bit>

namespace tessera {
namespace {
using Way = Message::Way;

// Below this many bytes a reduction is bound by latency: log2(ranks) rounds of the whole beat 2 (ranks - 1)
// of parts.
constexpr int64_t small_bytes = 32 << 10;
// A rank's part of one lane: own and received stay in the second-level cache. Between two ranks of a host,
// 128 KiB gave 10 GB/s, 256 KiB 7, 1 MiB 6; MPI_Allreduce 5.8, MPI_Iallreduce 3.8.
constexpr int64_t part_bytes = 128 << 10;

/// A run of elements in memory, whose tensors the operation keeps alive.
struct Span {
  char* data;
  int64_t count;
  at::ScalarType type;

  int64_t bytes() const { return count * static_cast<int64_t>(c10::elementSize(type)); }
  Span part(int64_t begin, int64_t end) const {
    return {data + begin * static_cast<int64_t>(c10::elementSize(type)), end - begin, type};
  }
  /// Block i of n that differ by one element at most.
  Span block(int64_t i, int64_t n) const { return part(i * count / n, (i + 1) * count / n); }
  at::Tensor tensor() const { return at::from_blob(data, {count}, at::TensorOptions().dtype(type)); }
};

Span span(const at::Tensor& tensor) {
  return {static_cast<char*>(tensor.data_ptr()), tensor.numel(), tensor.scalar_type()};
}

Message send(int peer, const Span& from) { return {Way::send, peer, from.data, from.bytes()}; }
Message receive(int peer, const Span& to) { return {Way::receive, peer, to.data, to.bytes()}; }

// into = into (op) other. ATen's kernels are vectorised, and add the 16-bit types in float32.
void reduce(const Span& into, const Span& other, Reduction reduction) {
  if (into.count == 0) return;
  at::Tensor a = into.tensor();
  const at::Tensor b = other.tensor();
  if (reduction == Reduction::sum) {
    a.add_(b);
  } else if (reduction == Reduction::max) {
    at::maximum_out(a, a, b);
  } else {
    at::minimum_out(a, a, b);
  }
}

void copy(const Span& to, const Span& from) {
  if (to.data != from.data && to.count > 0) memcpy(to.data, from.data, to.bytes());
}

/// Space for what is received, as long as a round refers to it.
struct Buffer {
  explicit Buffer(const Span& like) : tensor(at::empty({like.count}, at::TensorOptions().dtype(like.type))) {}
  Span first(int64_t count) const { return span(tensor).part(0, count); }
  at::Tensor tensor;
};

// Recursive doubling. The ranks beyond the largest power of two first hand their values to a neighbour.
std::vector<Round> double_all_reduce(const Span& mine, Reduction how, int rank, int size) {
  const int power = static_cast<int>(std::bit_floor(static_cast<unsigned>(size)));
  const int extra = size - power;
  const auto buffer = std::make_shared<Buffer>(mine);
  const Span received = buffer->first(mine.count);
  const auto add = [=] { reduce(mine, buffer->first(mine.count), how); };
  if (rank < 2 * extra && rank % 2 == 0) {
    return {{{send(rank + 1, mine)}, nullptr}, {{receive(rank + 1, mine)}, nullptr}};
  }
  std::vector<Round> rounds;
  const bool folded = rank < 2 * extra;
  if (folded) rounds.push_back({{receive(rank - 1, received)}, add});
  const int place = folded ? rank / 2 : rank - extra;
  for (int distance = 1; distance < power; distance *= 2) {
    const int other = place ^ distance;
    const int peer = other < extra ? 2 * other + 1 : other + extra;
    rounds.push_back({{send(peer, mine), receive(peer, received)}, add});
  }
  if (folded) rounds.push_back({{send(rank - 1, mine)}, nullptr});
  return rounds;
}

// A ring: each block travels round once and gathers the sum, then once more to spread it.
std::vector<Round> ring_all_reduce(const Span& mine, Reduction how, int rank, int size) {
  const auto block = [=](int i) { return mine.block((i % size + size) % size, size); };
  const int next = (rank + 1) % size;
  const int previous = (rank + size - 1) % size;
  const auto buffer = std::make_shared<Buffer>(mine.part(0, (mine.count + size - 1) / size));
  std::vector<Round> rounds;
  for (int step = 0; step < size - 1; ++step) {
    const Span into = block(rank - step - 1);
    const Span received = buffer->first(into.count);
    rounds.push_back({{send(next, block(rank - step)), receive(previous, received)},
                      [=] { reduce(into, buffer->first(into.count), how); }});
  }
  for (int step = 0; step < size - 1; ++step) {
    rounds.push_back({{send(next, block(rank + 1 - step)), receive(previous, block(rank - step))}, nullptr});
  }
  return rounds;
}

// The same ring, but only its first half and without touching the input: this rank ends with block `rank`.
std::vector<Round> ring_reduce_scatter(const Span& output, const std::vector<Span>& blocks, Reduction how,
                                       int rank) {
  const int size = static_cast<int>(blocks.size());
  const int next = (rank + 1) % size;
  const int previous = (rank + size - 1) % size;
  const auto a = std::make_shared<Buffer>(output);
  const auto b = std::make_shared<Buffer>(output);
  std::vector<Round> rounds;
  Span outgoing = blocks[previous];
  for (int step = 0; step < size - 1; ++step) {
    const Span own = blocks[(rank + 2 * size - 2 - step) % size];
    const auto& buffer = step % 2 == 0 ? a : b;
    const Span received = buffer->first(output.count);
    const bool last = step == size - 2;
    rounds.push_back({{send(next, outgoing), receive(previous, received)}, [=] {
                        reduce(buffer->first(output.count), own, how);
                        if (last) copy(output, buffer->first(output.count));
                      }});
    outgoing = received;
  }
  return rounds;
}

std::vector<Round> all_gather(const Span& output, const Span& input, int rank, int size) {
  const auto block = [=](int i) { return output.block((i + size) % size, size); };
  std::vector<Round> rounds{{{}, [=] { copy(block(rank), input); }}};
  if (input.bytes() <=
      small_bytes) {  // one round of everything, ordered so that not all start with the same rank
    Round round;
    for (int i = 1; i < size; ++i) {
      round.messages.push_back(receive((rank + size - i) % size, block(rank - i)));
      round.messages.push_back(send((rank + i) % size, input));
    }
    rounds.push_back(round);
    return rounds;
  }
  const int next = (rank + 1) % size;
  const int previous = (rank + size - 1) % size;
  for (int step = 0; step < size - 1; ++step) {
    rounds.push_back({{send(next, block(rank - step)), receive(previous, block(rank - step - 1))}, nullptr});
  }
  return rounds;
}

// A binomial tree: in the round of distance d, the first d ranks (counted from the root) send to the next d.
std::vector<Round> tree_broadcast(const Span& mine, int root, int rank, int size) {
  const int place = (rank + size - root) % size;
  std::vector<Round> rounds;
  for (int distance = 1; distance < size; distance *= 2) {
    if (place < distance && place + distance < size) {
      rounds.push_back({{send((rank + distance) % size, mine)}, nullptr});
    } else if (place >= distance && place < 2 * distance) {
      rounds.push_back({{receive((rank + size - distance) % size, mine)}, nullptr});
    }
  }
  return rounds;
}

std::vector<Round> all_to_all(const Span& output, const Span& input, int rank, int size) {
  Round round{{}, [=] { copy(output.block(rank, size), input.block(rank, size)); }};
  for (int i = 1; i < size; ++i) {
    const int from = (rank + size - i) % size;
    const int to = (rank + i) % size;
    round.messages.push_back(receive(from, output.block(from, size)));
    round.messages.push_back(send(to, input.block(to, size)));
  }
  return {round};
}

std::vector<Round> barrier(int rank, int size) {
  std::vector<Round> rounds;
  for (int distance = 1; distance < size; distance *= 2) {
    const Span nothing{nullptr, 0, at::kByte};
    rounds.push_back(
        {{send((rank + distance) % size, nothing), receive((rank + size - distance) % size, nothing)},
         nullptr});
  }
  return rounds;
}

// Lanes of `lane_bytes`; part(begin, end) makes the rounds of these elements.
Schedule in_lanes(const Span& whole, int64_t lane_bytes,
                  std::function<std::vector<Round>(int64_t, int64_t)> part) {
  const int64_t lanes = std::max<int64_t>((whole.bytes() + lane_bytes - 1) / lane_bytes, 1);
  const int64_t count = whole.count;
  return {lanes, [lanes, count, part = std::move(part)](int64_t lane) {
            return part(lane * count / lanes, (lane + 1) * count / lanes);
          }};
}

Schedule all_reduce_schedule(const Span& mine, Reduction how, int rank, int size) {
  if (mine.bytes() <= small_bytes) {
    return {1, [=](int64_t) { return double_all_reduce(mine, how, rank, size); }};
  }
  return in_lanes(mine, part_bytes * size, [=](int64_t begin, int64_t end) {
    return ring_all_reduce(mine.part(begin, end), how, rank, size);
  });
}

Schedule reduce_scatter_schedule(const Span& output, const Span& input, Reduction how, int rank, int size) {
  return in_lanes(output, part_bytes, [=](int64_t begin, int64_t end) {
    std::vector<Span> blocks;
    for (int i = 0; i < size; ++i) blocks.push_back(input.block(i, size).part(begin, end));
    return ring_reduce_scatter(output.part(begin, end), blocks, how, rank);
  });
}
}  // namespace

Schedule make_schedule(const Operation& operation, int rank, int size) {
  using Kind = Operation::Kind;
  const Span none{nullptr, 0, at::kByte};
  const Span output = operation.output.defined() ? span(operation.output) : none;
  const Span input = operation.input.defined() ? span(operation.input) : none;
  const int peer = operation.peer;
  switch (operation.kind) {
    case Kind::all_reduce:
      return all_reduce_schedule(output, operation.reduction, rank, size);
    case Kind::reduce_scatter:
      return reduce_scatter_schedule(output, input, operation.reduction, rank, size);
    case Kind::all_gather:
      return {1, [=](int64_t) { return all_gather(output, input, rank, size); }};
    case Kind::broadcast:
      return in_lanes(output, 16 * part_bytes, [=](int64_t begin, int64_t end) {
        return tree_broadcast(output.part(begin, end), peer, rank, size);
      });
    case Kind::send:
      return {1, [=](int64_t) { return std::vector<Round>{{{send(peer, input)}, nullptr}}; }};
    case Kind::receive:
      return {1, [=](int64_t) { return std::vector<Round>{{{receive(peer, output)}, nullptr}}; }};
    case Kind::all_to_all:
      return {1, [=](int64_t) { return all_to_all(output, input, rank, size); }};
    case Kind::barrier:
      return {1, [=](int64_t) { return barrier(rank, size); }};
  }
  throw std::logic_error("unknown operation");
}

}  // namespace tessera
