// The algorithms of collectives without MPI: all ranks' schedules are carried out in one process, for more
// ranks than tests under mpirun can have.
#include "parallel/schedule.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>

namespace tessera {
namespace {
using Kind = Operation::Kind;

class Simulation {
 public:
  /// Carries out one lane of all ranks. Messages are delivered once both ends have posted them.
  static void run(std::vector<std::vector<Round>> ranks) {
    std::vector<size_t> at(ranks.size(), 0);
    std::map<std::pair<int, int>, std::deque<std::vector<char>>> network;  // (from, to) -> bytes under way
    std::vector<size_t> sent(ranks.size(), 0);                             // rounds whose messages were sent
    for (bool moved = true; moved;) {
      moved = false;
      for (int rank = 0; rank < static_cast<int>(ranks.size()); ++rank) {
        while (at[rank] < ranks[rank].size() &&
               step(ranks[rank][at[rank]], rank, at[rank], sent[rank], network)) {
          ++at[rank];
          moved = true;
        }
      }
    }
    for (size_t rank = 0; rank < ranks.size(); ++rank)
      EXPECT_EQ(at[rank], ranks[rank].size()) << "stuck: " << rank;
    for (const auto& [ends, messages] : network) EXPECT_TRUE(messages.empty()) << "never received";
  }

 private:
  using Network = std::map<std::pair<int, int>, std::deque<std::vector<char>>>;
  static bool step(const Round& round, int rank, size_t index, size_t& sent, Network& network) {
    if (sent == index) {
      for (const auto& message : round.messages) {
        if (message.way != Message::Way::send) continue;
        const char* data = static_cast<const char*>(message.data);
        network[{rank, message.peer}].emplace_back(data, data + message.bytes);
      }
      ++sent;
    }
    for (const auto& message : round.messages) {
      if (message.way == Message::Way::receive && network[{message.peer, rank}].empty()) return false;
    }
    for (const auto& message : round.messages) {
      if (message.way != Message::Way::receive) continue;
      auto& queue = network[{message.peer, rank}];
      EXPECT_EQ(static_cast<int64_t>(queue.front().size()), message.bytes);
      std::copy(queue.front().begin(), queue.front().end(), static_cast<char*>(message.data));
      queue.pop_front();
    }
    if (round.after) round.after();
    return true;
  }
};

void run(const std::vector<Operation>& operations) {
  const int size = static_cast<int>(operations.size());
  std::vector<Schedule> schedules;
  for (int rank = 0; rank < size; ++rank) schedules.push_back(make_schedule(operations[rank], rank, size));
  for (int64_t lane = 0; lane < schedules[0].num_lanes; ++lane) {
    std::vector<std::vector<Round>> rounds;
    for (const auto& schedule : schedules) {
      ASSERT_EQ(schedule.num_lanes, schedules[0].num_lanes);
      rounds.push_back(schedule.rounds(lane));
    }
    Simulation::run(rounds);
  }
}

at::Tensor values(int rank, int64_t count) {
  return (at::arange(count, at::kLong) * 7 + rank * 3).remainder(11).to(at::kFloat);
}

class ScheduleTest : public testing::TestWithParam<int> {};

TEST_P(ScheduleTest, all_reduce) {
  const int size = GetParam();
  for (const int64_t count : {0, 1, 5, 8192, 8193, 400001}) {
    std::vector<Operation> operations(size);
    at::Tensor expected = at::zeros({count});
    for (int rank = 0; rank < size; ++rank) {
      operations[rank] = {Kind::all_reduce, values(rank, count), {}};
      expected += values(rank, count);
    }
    run(operations);
    for (const auto& operation : operations) EXPECT_TRUE(at::equal(operation.output, expected)) << count;
  }
}

TEST_P(ScheduleTest, reduce_scatter_and_all_gather) {
  const int size = GetParam();
  for (const int64_t count : {1, 7, 100003}) {
    std::vector<Operation> scatter(size);
    std::vector<Operation> gather(size);
    at::Tensor expected = at::zeros({count * size});
    for (int rank = 0; rank < size; ++rank) {
      scatter[rank] = {Kind::reduce_scatter, at::empty({count}), values(rank, count * size)};
      gather[rank] = {Kind::all_gather, at::empty({count * size}), scatter[rank].output};
      expected += values(rank, count * size);
    }
    run(scatter);
    run(gather);
    for (const auto& operation : gather) EXPECT_TRUE(at::equal(operation.output, expected)) << count;
  }
}

TEST_P(ScheduleTest, broadcast_all_to_all_and_barrier) {
  const int size = GetParam();
  const int64_t count = 1100007;
  for (int root = 0; root < size; root += 4) {
    std::vector<Operation> operations(size);
    for (int rank = 0; rank < size; ++rank) {
      operations[rank] = {Kind::broadcast, values(rank, count), {}, Reduction::sum, root};
    }
    run(operations);
    for (const auto& operation : operations) EXPECT_TRUE(at::equal(operation.output, values(root, count)));
  }
  std::vector<Operation> operations(size);
  for (int rank = 0; rank < size; ++rank) {
    operations[rank] = {Kind::all_to_all, at::empty({size * 5}), values(rank, size * 5)};
  }
  run(operations);
  for (int rank = 0; rank < size; ++rank) {
    for (int from = 0; from < size; ++from) {
      EXPECT_TRUE(at::equal(operations[rank].output.narrow(0, from * 5, 5),
                            values(from, size * 5).narrow(0, rank * 5, 5)));
    }
  }
  run(std::vector<Operation>(size));
}

INSTANTIATE_TEST_SUITE_P(Ranks, ScheduleTest, testing::Values(2, 3, 5, 7, 8, 13));
}  // namespace
}  // namespace tessera
