#pragma once
#include <thread>

#include "tests/parallel/ordered_job.h"

namespace tessera {

/// A rank's end of a group of an OrderedJob.
class OrderedTransport : public Transport {
 public:
  OrderedTransport(OrderedJob::Group& group, int rank) : group_(group), rank_(rank) {}
  ~OrderedTransport() override { group_.job.end(group_); }
  int rank() const override { return rank_; }
  int size() const override { return group_.size(); }
  at::Device device() const override { return at::kCPU; }

  std::shared_ptr<Work::State> start(Operation operation) override {
    auto task = std::make_shared<OrderedJob::Task>(group_, rank_, std::move(operation));
    group_.job.issue(task);
    return task;
  }
  std::shared_ptr<Transport> split(int color, int key, GroupUse use) override {
    return group_.job.split(group_, rank_, color, key, use);
  }

 private:
  OrderedJob::Group& group_;  // the job's
  int rank_;
};

inline std::shared_ptr<Transport> OrderedJob::split(Group& group, int rank, int color, int key,
                                                    GroupUse use) {
  std::unique_lock lock(mutex_);
  group.members[rank].split = {color, key, use};
  const int number = group.num_splits;
  if (++group.num_in_split == group.size()) {
    std::map<int, std::vector<std::pair<int, int>>> colors;  // to (key, rank)
    for (int i = 0; i < group.size(); ++i) {
      colors[group.members[i].split.color].emplace_back(group.members[i].split.key, i);
    }
    for (auto& [unused, ranks] : colors) {
      std::sort(ranks.begin(), ranks.end());
      std::vector<int> job_ranks;
      for (const auto& each : ranks) job_ranks.push_back(group.members[each.second].job_rank);
      for (const auto& each : ranks) group.members[each.second].made = nullptr;
      if (ranks.size() == 1) continue;
      Group& part = *make_group(job_ranks, group.members[ranks.front().second].split.use);
      for (int i = 0; i < part.size(); ++i) {
        group.members[ranks[i].second].made = std::make_shared<OrderedTransport>(part, i);
      }
    }
    group.num_in_split = 0;
    ++group.num_splits;
    changed_.notify_all();
  }
  wait_until(lock, [&] { return group.num_splits > number; });
  return std::move(group.members[rank].made);  // whoever asked alone keeps it
}

/// Calls body(communicator of all ranks) on as many threads as there are ranks; what they threw, with the
/// rank.
template <class F>
std::vector<std::string> errors_of_ranks(OrderedJob& job, const F& body) {
  const int num_ranks = job.world().size();
  std::vector<std::string> errors(num_ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < num_ranks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        body(num_ranks == 1 ? Communicator()
                            : Communicator(std::make_shared<OrderedTransport>(job.world(), rank)));
      } catch (const std::exception& error) {
        errors[rank] = "rank " + std::to_string(rank) + ": " + error.what();
      }
      job.leave();
    });
  }
  for (auto& thread : threads) thread.join();
  std::erase(errors, "");
  if (job.ended_alone()) errors.push_back("deadlock at the end");
  return errors;
}

}  // namespace tessera
