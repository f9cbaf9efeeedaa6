#pragma once
#include <algorithm>
#include <array>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <numeric>
#include <set>
#include <stdexcept>
#include <vector>

#include "parallel/channels.h"

namespace tessera {

/// Ranks as threads of one process, whose operations go as on GPUs: no tags; a rank carries out each of its
/// channels (parallel/channels.h) in the order of issue, a send until its receive, a collective until all
/// have come to it. A state in which every rank waits for another is seen at once.
class OrderedJob {
 public:
  struct Options {
    ChannelOrder order = channel_order;
    /// The first collective of each kind in a group, and the first message of each pair, keep who issues them
    /// until the other side issues its own: NCCL connects ranks then.
    bool connects = false;
    /// Who ends a group waits until its other ranks end it too, as ncclCommDestroy does within a host.
    bool ends_together = false;
  };
  struct Group;
  struct Task : Work::State {
    Task(Group& group_, int rank_, Operation operation_)
        : group(group_), rank(rank_), operation(std::move(operation_)) {}
    bool done() override;
    void wait() override;
    double seconds() override { return 0; }
    Group& group;
    int rank;  // of the group
    Operation operation;
    bool ended = false;
  };
  using Queue = std::deque<std::shared_ptr<Task>>;
  struct Member {
    int job_rank = 0;
    std::array<Queue*, 3> channels{};  // by Channel; null where the group has none
    struct {
      int color, key;
      GroupUse use;
    } split{};
    std::shared_ptr<Transport> made = nullptr;  // by the last split
  };
  struct Group {
    OrderedJob& job;
    std::vector<Member> members;
    int num_in_split = 0;
    int num_splits = 0;
    int num_ended = 0;
    std::map<std::array<int, 3>, std::set<int>> connections;  // by kind, sender, receiver: who has come
    int size() const { return static_cast<int>(members.size()); }
  };

  OrderedJob(int num_ranks, Options options)
      : options_(options), queues_(num_ranks), num_streams_(num_ranks) {
    std::vector<int> ranks(num_ranks);
    std::iota(ranks.begin(), ranks.end(), 0);
    num_running_ = num_ranks;
    world_ = make_group(ranks, GroupUse::messages);
  }

  Group& world() { return *world_; }
  /// What a rank's groups have taken so far.
  int num_streams(int rank) const { return num_streams_[rank]; }

  void issue(const std::shared_ptr<Task>& task) {
    std::unique_lock lock(mutex_);
    Member& member = task->group.members[task->rank];
    Queue* queue = member.channels[static_cast<size_t>(channel_of(task->operation, task->rank))];
    if (queue == nullptr) throw std::logic_error("a message in a group without channels for them");
    if (options_.connects) connect(lock, *task);
    queue->push_back(task);
    advance(*queue);
    changed_.notify_all();
  }

  std::shared_ptr<Transport> split(Group& group, int rank, int color, int key, GroupUse use);

  /// A rank lets go of its end of a group.
  void end(Group& group) {
    if (!options_.ends_together) return;
    std::unique_lock lock(mutex_);
    ++group.num_ended;
    changed_.notify_all();
    try {
      wait_until(lock, [&] { return group.num_ended == group.size(); });
    } catch (const std::runtime_error&) {  // a destructor calls
      ended_alone_ = true;
    }
  }
  /// Whether a rank waited in vain for others to end a group.
  bool ended_alone() const { return ended_alone_; }

  /// A rank's thread has nothing more to do.
  void leave() {
    const std::lock_guard lock(mutex_);
    --num_running_;
    look_for_deadlock();
  }

 private:
  friend struct Task;
  using Condition = std::function<bool()>;

  std::shared_ptr<Group> make_group(const std::vector<int>& ranks, GroupUse use) {
    const auto group = std::make_shared<Group>(Group{*this, {}, 0, 0, 0, {}});
    for (const int rank : ranks) {
      group->members.push_back({.job_rank = rank});
      for (int channel = 0; channel < num_channels(use); ++channel) {
        ++num_streams_[rank];
        if (options_.order == ChannelOrder::own || queues_[rank].empty()) queues_[rank].emplace_back();
        group->members.back().channels[channel] = &queues_[rank].back();
      }
    }
    groups_.push_back(group);
    return group;
  }

  void wait_until(std::unique_lock<std::mutex>& lock, const Condition& condition) {
    if (condition()) return;
    waiting_.push_back(&condition);
    look_for_deadlock();
    changed_.wait(lock, [&] { return deadlocked_ || condition(); });
    std::erase(waiting_, &condition);
    if (!condition()) throw std::runtime_error("deadlock");
  }

  void look_for_deadlock() {
    const bool stuck =
        num_running_ > 0 && static_cast<int>(waiting_.size()) == num_running_ &&
        std::none_of(waiting_.begin(), waiting_.end(), [](const auto* each) { return (*each)(); });
    if (!stuck) return;
    deadlocked_ = true;
    changed_.notify_all();
  }

  void connect(std::unique_lock<std::mutex>& lock, const Task& task) {
    const Operation& operation = task.operation;
    const bool sends = operation.kind == Operation::Kind::send;
    const bool message = sends || operation.kind == Operation::Kind::receive;
    const int kind = static_cast<int>(message ? Operation::Kind::send : operation.kind);
    const int sender = sends ? task.rank : operation.peer, receiver = sends ? operation.peer : task.rank;
    auto& come = task.group.connections[{kind, message ? sender : -1, message ? receiver : -1}];
    const size_t all = message ? 2 : task.group.members.size();
    come.insert(task.rank);
    changed_.notify_all();
    wait_until(lock, [&] { return come.size() == all; });
  }

  // Ends what all sides have reached, from the head of this queue on.
  void advance(Queue& first) {
    std::vector<Queue*> candidates{&first};
    while (!candidates.empty()) {
      const Queue& queue = *candidates.back();
      candidates.pop_back();
      if (queue.empty()) continue;
      for (Queue* freed : sides(*queue.front())) {
        freed->front()->ended = true;
        freed->pop_front();
        candidates.push_back(freed);
      }
    }
  }

  // The queues at whose heads the operation stands, once it has been carried out; none where somebody is not
  // there yet.
  std::vector<Queue*> sides(const Task& task) {
    const Channel channel = channel_of(task.operation, task.rank);
    std::vector<int> ranks{task.rank, task.operation.peer};
    if (channel == Channel::collective) {
      ranks.clear();
      for (int rank = 0; rank < task.group.size(); ++rank) ranks.push_back(rank);
    }
    std::vector<Queue*> queues;
    std::vector<const Operation*> operations;
    for (const int rank : ranks) {
      Queue* queue = task.group.members[rank].channels[static_cast<size_t>(channel)];
      if (queue->empty() || &queue->front()->group != &task.group || !fits(task, *queue->front())) return {};
      queues.push_back(queue);
      operations.push_back(&queue->front()->operation);
    }
    const at::NoGradGuard no_grad;
    carry_out(operations);
    return queues;
  }

  static bool fits(const Task& one, const Task& other) {
    if (&one == &other) return true;
    const auto kind = one.operation.kind;
    if (channel_of(one.operation, one.rank) == Channel::collective) return other.operation.kind == kind;
    return channel_of(other.operation, other.rank) != Channel::collective && other.operation.kind != kind &&
           other.operation.peer == one.rank && one.operation.peer == other.rank;
  }

  static void carry_out(const std::vector<const Operation*>& ranks);

  const Options options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::deque<Queue>> queues_;  // by rank of the job
  std::vector<int> num_streams_;
  std::vector<std::shared_ptr<Group>> groups_;
  std::shared_ptr<Group> world_;
  int num_running_ = 0;
  std::vector<const Condition*> waiting_;
  bool deadlocked_ = false;
  bool ended_alone_ = false;
};

inline bool OrderedJob::Task::done() {
  const std::lock_guard lock(group.job.mutex_);
  return ended;
}

inline void OrderedJob::Task::wait() {
  std::unique_lock lock(group.job.mutex_);
  group.job.wait_until(lock, [this] { return ended; });
}

inline void OrderedJob::carry_out(const std::vector<const Operation*>& ranks) {
  using Kind = Operation::Kind;
  const Operation& first = *ranks.front();
  const auto size = static_cast<int64_t>(ranks.size());
  const auto together = [&](at::Tensor Operation::*which) {
    std::vector<at::Tensor> tensors;
    for (const Operation* each : ranks) tensors.push_back((each->*which).reshape({-1}));
    return at::stack(tensors);  // [ranks, elements]
  };
  const auto reduced = [&](const at::Tensor& all) {
    return first.reduction == Reduction::sum   ? all.sum(0, false, all.scalar_type())
           : first.reduction == Reduction::max ? all.amax(0)
                                               : all.amin(0);
  };
  at::Tensor blocks;  // [ranks, elements]: a row for each
  switch (first.kind) {
    case Kind::barrier:
      return;
    case Kind::send:
    case Kind::receive: {
      const bool sends = first.kind == Kind::send;
      ranks[sends ? 1 : 0]->output.copy_(ranks[sends ? 0 : 1]->input);
      return;
    }
    case Kind::all_reduce:
      blocks = reduced(together(&Operation::output)).expand({size, -1});
      break;
    case Kind::reduce_scatter:
      blocks = reduced(together(&Operation::input)).view({size, -1});
      break;
    case Kind::all_gather:
      blocks = together(&Operation::input).view({1, -1}).expand({size, -1});
      break;
    case Kind::broadcast:
      blocks = ranks[first.peer]->output.reshape({1, -1}).expand({size, -1}).clone();
      break;
    case Kind::all_to_all:
      blocks = together(&Operation::input).view({size, size, -1}).transpose(0, 1).reshape({size, -1});
      break;
  }
  for (int64_t i = 0; i < size; ++i) ranks[i]->output.view({-1}).copy_(blocks[i]);
}

}  // namespace tessera
