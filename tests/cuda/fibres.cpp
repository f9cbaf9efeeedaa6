#include "tests/cuda/fibres.h"

#include <algorithm>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "tests/cuda/switch.h"

uint3 threadIdx{}, blockIdx{};
dim3 blockDim, gridDim;

namespace fibres {
namespace {

enum class State { ready, at_barrier, in_exchange, in_vote, done };

struct Thread {
  Stack stack;
  uint3 index{};
  State state = State::done;
  Place place{"", 0};
  uint32_t mask = 0, source = 0;
  uint64_t value = 0, result = 0;
};

std::string where(const Place& place) {
  const std::string file = place.file;
  return file.substr(file.rfind('/') + 1) + ":" + std::to_string(place.line);
}

// Of a launch and its threads; there is one at a time.
struct Scheduler {
  std::vector<Thread> threads;
  uint32_t count = 0;  // of the block's threads
  Thread* running = nullptr;
  Stack caller;
  const std::function<void()>* kernel = nullptr;
  std::exception_ptr failure;
  std::unique_ptr<char[]> shared;
  Order order = Order::ascending;
  std::mt19937 random;
};
Scheduler scheduler;

std::vector<uint32_t> in_order(uint32_t count) {
  std::vector<uint32_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0u);
  if (scheduler.order == Order::descending) std::reverse(numbers.begin(), numbers.end());
  if (scheduler.order == Order::shuffled) std::shuffle(numbers.begin(), numbers.end(), scheduler.random);
  return numbers;
}

void thread_entry() {
  arrived(scheduler.caller);
  try {
    (*scheduler.kernel)();
  } catch (...) {
    scheduler.failure = std::current_exception();
  }
  scheduler.running->state = State::done;
  switch_stack(scheduler.running->stack, scheduler.caller, /*ends=*/true);
}

// Until it waits for others or ends.
void advance(Thread& thread) {
  scheduler.running = &thread;
  threadIdx = thread.index;
  switch_stack(scheduler.caller, thread.stack);
  if (scheduler.failure) std::rethrow_exception(std::exchange(scheduler.failure, nullptr));
}

void wait(State state, Place place) {
  scheduler.running->state = state;
  scheduler.running->place = place;
  switch_stack(scheduler.running->stack, scheduler.caller);
}

Thread* warp_of(uint32_t number) { return scheduler.threads.data() + number / 32 * 32; }

// The lanes that `thread` waits for, when all of them are there.
std::vector<Thread*> lanes_with(const Thread& thread, uint32_t first) {
  std::vector<Thread*> lanes;
  for (uint32_t lane = 0; lane < 32; ++lane) {
    if (!(thread.mask >> lane & 1)) continue;
    Thread* other = first + lane < scheduler.count ? warp_of(first) + lane : nullptr;
    if (!other || other->state != thread.state || other->mask != thread.mask ||
        !(other->place == thread.place)) {
      throw KernelError(where(thread.place) + ": lane " + std::to_string(lane) +
                        " does not take part in a shuffle that waits for it");
    }
    lanes.push_back(other);
  }
  return lanes;
}

void complete_warp_operation(const Thread& thread, uint32_t first) {
  const std::vector<Thread*> lanes = lanes_with(thread, first);
  const bool vote = thread.state == State::in_vote;
  uint64_t votes = 0;
  for (const Thread* lane : lanes) votes |= vote ? lane->value << (lane - warp_of(first)) : 0;
  for (Thread* lane : lanes) {
    if (!vote && !(lane->mask >> lane->source & 1)) {
      throw KernelError(where(lane->place) + ": lane " + std::to_string(lane->source) +
                        " is read, but not in the mask");
    }
    lane->result = vote ? votes : (warp_of(first) + lane->source)->value;
  }
  for (Thread* lane : lanes) lane->state = State::ready;
}

bool complete_warp_operations() {
  bool any = false;
  for (uint32_t number = 0; number < scheduler.count; ++number) {
    const Thread& thread = scheduler.threads[number];
    if (thread.state != State::in_exchange && thread.state != State::in_vote) continue;
    if (!(thread.mask >> number % 32 & 1))
      throw KernelError(where(thread.place) + ": a mask without its own lane");
    complete_warp_operation(thread, number / 32 * 32);
    any = true;
  }
  return any;
}

void complete_barrier() {
  const Thread& first = *std::find_if(scheduler.threads.begin(), scheduler.threads.end(),
                                      [](const Thread& each) { return each.state == State::at_barrier; });
  for (uint32_t number = 0; number < scheduler.count; ++number) {
    Thread& thread = scheduler.threads[number];
    if (thread.state != State::at_barrier || !(thread.place == first.place)) {
      throw KernelError(where(first.place) + ": thread " + std::to_string(number) +
                        (thread.state == State::done
                             ? " ended without reaching this barrier"
                             : " waits at another barrier, at " + where(thread.place)));
    }
  }
  for (uint32_t number = 0; number < scheduler.count; ++number)
    scheduler.threads[number].state = State::ready;
}

void run_block() {
  for (uint32_t number = 0; number < scheduler.count; ++number) {
    Thread& thread = scheduler.threads[number];
    begin(thread.stack, thread_entry);
    thread.state = State::ready;
    thread.index = {number % blockDim.x, number / blockDim.x % blockDim.y, number / blockDim.x / blockDim.y};
  }
  const std::vector<uint32_t> order = in_order(scheduler.count);
  while (true) {
    for (const uint32_t number : order) {
      if (scheduler.threads[number].state == State::ready) advance(scheduler.threads[number]);
    }
    const auto end = scheduler.threads.begin() + scheduler.count;
    if (std::all_of(scheduler.threads.begin(), end,
                    [](const Thread& each) { return each.state == State::done; })) {
      return;
    }
    if (!complete_warp_operations()) complete_barrier();
  }
}

void check_limits(size_t shared_bytes, dim3 grid, dim3 block) {
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > 1024 || block.z > 64)
    throw KernelError("a block of " + std::to_string(threads) + " threads");
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > 0x7FFFFFFF || grid.y > 65535 || grid.z > 65535) {
    throw KernelError("a grid that is empty or too large");
  }
  if (shared_bytes > max_shared_bytes)
    throw KernelError(std::to_string(shared_bytes) + " bytes of shared memory");
}

}  // namespace

void set_order(Order order) {
  scheduler.order = order;
  scheduler.random.seed(1);
}

void run(size_t shared_bytes, dim3 grid, dim3 block, const std::function<void()>& kernel) {
  check_limits(shared_bytes, grid, block);
  gridDim = grid;
  blockDim = block;
  scheduler.count = block.x * block.y * block.z;
  scheduler.kernel = &kernel;
  while (scheduler.threads.size() < scheduler.count) {
    scheduler.threads.emplace_back();
    scheduler.threads.back().stack = allocate_stack();
  }
  for (const uint32_t number : in_order(grid.x * grid.y * grid.z)) {
    blockIdx = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
    // Of exactly this size, so that AddressSanitizer sees its end; what it holds at first is arbitrary.
    scheduler.shared.reset(new char[std::max<size_t>(shared_bytes, 1)]);
    std::fill_n(scheduler.shared.get(), shared_bytes, static_cast<char>(0xFF));
    run_block();
  }
}

void* dynamic_shared() { return scheduler.shared.get(); }

void barrier(Place place) { wait(State::at_barrier, place); }

uint64_t exchange(uint32_t mask, uint64_t value, uint32_t source, Place place) {
  Thread& thread = *scheduler.running;
  thread.mask = mask;
  thread.value = value;
  thread.source = source;
  wait(State::in_exchange, place);
  return thread.result;
}

uint32_t vote(uint32_t mask, bool predicate, Place place) {
  Thread& thread = *scheduler.running;
  thread.mask = mask;
  thread.value = predicate ? 1 : 0;
  wait(State::in_vote, place);
  return static_cast<uint32_t>(thread.result);
}

void check_alignment(const void* address) {
  if (reinterpret_cast<uintptr_t>(address) % 16 != 0)
    throw KernelError("an access of 16 bytes at an address not divisible by 16");
}

}  // namespace fibres
