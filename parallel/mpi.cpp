#include <ATen/Functions.h>
#include <fmt/format.h>

#include <algorithm>

#include "parallel/mpi_worker.h"

namespace tessera {
namespace {
constexpr int max_groups = 1024;  // bits of the tag

class MpiTransport : public Transport {
 public:
  MpiTransport(std::shared_ptr<MpiWorker> worker, std::shared_ptr<const MpiGroup> group)
      : worker_(std::move(worker)), group_(std::move(group)) {}

  int rank() const override { return group_->rank; }
  int size() const override { return static_cast<int>(group_->members.size()); }
  at::Device device() const override { return at::kCPU; }

  std::shared_ptr<Work::State> start(Operation operation) override {
    auto task =
        std::make_shared<MpiTask>(std::move(operation), group_, next_sequence_, worker_->num_waiting());
    next_sequence_ += task->num_sequences();
    worker_->submit(task);
    return task;
  }

  // Needs no call of MPI: a group is a list of ranks and a number that its messages carry. The number is the
  // highest that any member would use next, so two groups that share two ranks never share it.
  std::shared_ptr<Transport> split(int color, int key, GroupUse) override {
    const at::Tensor mine = at::tensor({color, key, worker_->next_group_id()}, at::kInt);
    const at::Tensor all = at::empty({size(), 3}, at::kInt);
    start({Operation::Kind::all_gather, all, mine})->wait();
    const auto facts = all.accessor<int, 2>();
    std::vector<std::pair<int, int>> members;  // (key, rank here)
    int id = 0;
    for (int i = 0; i < size(); ++i) {
      if (facts[i][0] != color) continue;
      members.emplace_back(facts[i][1], i);
      id = std::max(id, facts[i][2]);
    }
    if (members.size() == 1) return nullptr;
    if (id >= max_groups) throw std::logic_error(fmt::format("more than {} groups of ranks", max_groups));
    worker_->next_group_id() = id + 1;
    std::sort(members.begin(), members.end());
    MpiGroup group;
    group.id = id;
    for (const auto& [unused_key, old_rank] : members) {
      if (old_rank == rank()) group.rank = static_cast<int>(group.members.size());
      group.members.push_back(group_->members[old_rank]);
    }
    return std::make_shared<MpiTransport>(worker_, std::make_shared<const MpiGroup>(std::move(group)));
  }

 private:
  std::shared_ptr<MpiWorker> worker_;
  std::shared_ptr<const MpiGroup> group_;
  uint32_t next_sequence_ = 0;
};
}  // namespace

std::shared_ptr<Transport> make_mpi_transport(std::shared_ptr<MpiWorker> worker, int rank, int size) {
  MpiGroup group;
  group.rank = rank;
  for (int i = 0; i < size; ++i) group.members.push_back(i);
  return std::make_shared<MpiTransport>(std::move(worker),
                                        std::make_shared<const MpiGroup>(std::move(group)));
}

}  // namespace tessera
