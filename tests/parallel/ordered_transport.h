#pragma once
#include <chrono>
#include <condition_variable>
#include <deque>
#include <map>
#include <mutex>
#include <stdexcept>
#include <vector>

#include "parallel/transport.h"

namespace tessera {

/// Ranks as threads of one process, whose messages go as NCCL's do: no tags, and each rank carries out a
/// communicator's messages up the ranks one after the other, and those down the ranks likewise; a send ends
/// with its receive. Only send, receive and split.
class OrderedTransport : public Transport {
 public:
  /// What the ranks of a group share.
  struct Group {
    explicit Group(int size) : queues(size), facts(size), made(size) {}
    struct Task : Work::State {
      Task(Group& group_, Operation operation_) : group(group_), operation(std::move(operation_)) {}
      bool done() override {
        const std::lock_guard lock(group.mutex);
        return ended;
      }
      void wait() override {
        std::unique_lock lock(group.mutex);
        if (!group.changed.wait_for(lock, std::chrono::seconds(20), [this] { return ended; })) {
          throw std::runtime_error("deadlock");
        }
      }
      double seconds() override { return 0; }
      Group& group;
      Operation operation;
      bool ended = false;
    };
    struct Channels {
      std::deque<std::shared_ptr<Task>> up, down;
    };
    struct Fact {
      int color, key;
    };

    // Ends what both sides have reached.
    void match() {
      for (bool moved = true; moved;) {
        moved = false;
        for (int from = 0; from < size(); ++from) {
          for (int to = 0; to < size(); ++to) moved |= from != to && match(from, to);
        }
      }
    }
    bool match(int from, int to) {
      auto& sends = from < to ? queues[from].up : queues[from].down;
      auto& receives = from < to ? queues[to].up : queues[to].down;
      if (sends.empty() || receives.empty()) return false;
      const Operation& send = sends.front()->operation;
      const Operation& receive = receives.front()->operation;
      if (send.kind != Operation::Kind::send || send.peer != to) return false;
      if (receive.kind != Operation::Kind::receive || receive.peer != from) return false;
      receive.output.copy_(send.input);
      for (auto* queue : {&sends, &receives}) {
        queue->front()->ended = true;
        queue->pop_front();
      }
      return true;
    }
    int size() const { return static_cast<int>(queues.size()); }

    std::mutex mutex;
    std::condition_variable changed;
    std::vector<Channels> queues;  // by rank
    std::vector<Fact> facts;       // of the split under way
    int num_facts = 0;
    int num_splits = 0;
    std::vector<std::shared_ptr<Transport>> made;  // by the last split, by rank
  };

  OrderedTransport(std::shared_ptr<Group> group, int rank) : group_(std::move(group)), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }
  at::Device device() const override { return at::kCPU; }

  std::shared_ptr<Work::State> start(Operation operation) override {
    const bool sends = operation.kind == Operation::Kind::send;
    const bool up = sends == (operation.peer > rank_);
    auto task = std::make_shared<Group::Task>(*group_, std::move(operation));
    const std::lock_guard lock(group_->mutex);
    auto& channels = group_->queues[rank_];
    (up ? channels.up : channels.down).push_back(task);
    group_->match();
    group_->changed.notify_all();
    return task;
  }

  std::shared_ptr<Transport> split(int color, int key) override {
    std::unique_lock lock(group_->mutex);
    group_->facts[rank_] = {color, key};
    const int number = group_->num_splits;
    if (++group_->num_facts == size()) {
      make_groups();
      group_->num_facts = 0;
      ++group_->num_splits;
      group_->changed.notify_all();
    }
    group_->changed.wait(lock, [&] { return group_->num_splits > number; });
    return group_->made[rank_];
  }

 private:
  // For all ranks: a rank that is quick may be in its next split before another has left this one.
  void make_groups() {
    std::map<int, std::shared_ptr<Group>> groups;
    for (int i = 0; i < size(); ++i) {
      const auto [color, key] = group_->facts[i];
      int members = 0;
      int rank = 0;
      for (const auto& other : group_->facts) {
        members += other.color == color;
        rank += other.color == color && other.key < key;
      }
      auto& group = groups[color];
      if (!group) group = std::make_shared<Group>(members);
      group_->made[i] = members == 1 ? nullptr : std::make_shared<OrderedTransport>(group, rank);
    }
  }

  std::shared_ptr<Group> group_;
  int rank_;
};

}  // namespace tessera
