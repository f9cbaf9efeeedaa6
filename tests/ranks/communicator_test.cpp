// The conformance suite of transports: every operation on every type, odd sizes, in place, empty,
// asynchronous, in several groups at once. Expected values are computed on each rank alone, from what every
// rank is known to put in.
#include <gtest/gtest.h>

#include "tests/ranks/transports.h"

namespace tessera {
namespace {
const std::vector<at::ScalarType> types = {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf,
                                           at::kInt,   at::kLong,   at::kByte};
// Below, at and above the limits at which algorithms change; the largest makes several lanes of unequal
// length.
const std::vector<int64_t> sizes = {0, 1, 3, 17, 1000, 8192, 8193, 300007};

// What `rank` puts in: small integers, exact in every type and so in every order of addition.
at::Tensor values(int rank, int64_t count, at::ScalarType type) {
  return (at::arange(count, at::kLong) * 7 + rank * 3).remainder(11).to(type);
}

class Conformance : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    world = make_test_communicator(GetParam());
    rank = world.rank();
    size = world.size();
  }
  at::Tensor place(const at::Tensor& tensor) const { return tensor.to(world.device()).contiguous(); }
  at::Tensor mine(int64_t count, at::ScalarType type) const { return place(values(rank, count, type)); }
  at::Tensor everyone(int64_t count, at::ScalarType type) const {
    std::vector<at::Tensor> rows;
    for (int i = 0; i < size; ++i) rows.push_back(values(i, count, type));
    return at::stack(rows);
  }
  void expect_equal(const at::Tensor& actual, const at::Tensor& expected) const {
    ASSERT_EQ(actual.scalar_type(), expected.scalar_type());
    EXPECT_TRUE(at::equal(actual.cpu(), expected.view(actual.sizes())))
        << c10::toString(actual.scalar_type()) << " x " << actual.numel();
  }
  Communicator world;
  int rank = 0;
  int size = 1;
};

TEST_P(Conformance, all_reduce_of_every_type_and_size) {
  for (const auto type : types) {
    for (const int64_t count : sizes) {
      for (const auto reduction : {Reduction::sum, Reduction::max, Reduction::min}) {
        if (reduction != Reduction::sum && count > 10000) continue;  // what differs is only the arithmetic
        const at::Tensor tensor = mine(count, type);
        world.all_reduce(tensor, reduction);
        const at::Tensor all = everyone(count, type);
        const at::Tensor expected = reduction == Reduction::sum   ? all.sum(0, false, type)
                                    : reduction == Reduction::max ? all.amax(0)
                                                                  : all.amin(0);
        expect_equal(tensor, expected);
      }
    }
  }
}

TEST_P(Conformance, reduce_scatter_leaves_its_input_and_gives_each_rank_its_block) {
  for (const auto type : types) {
    for (const int64_t count : sizes) {
      const at::Tensor input = mine(count * size, type);
      const at::Tensor output = at::empty({count}, input.options());
      world.reduce_scatter(output, input);
      expect_equal(output, everyone(count * size, type).sum(0, false, type).narrow(0, rank * count, count));
      expect_equal(input, values(rank, count * size, type));
    }
  }
}

TEST_P(Conformance, reduce_scatter_in_place) {
  const int64_t count = 70001;
  const at::Tensor input = mine(count * size, at::kFloat);
  const at::Tensor output = input.narrow(0, rank * count, count);
  world.reduce_scatter(output, input);
  expect_equal(output, everyone(count * size, at::kFloat).sum(0).narrow(0, rank * count, count));
}

TEST_P(Conformance, all_gather_in_order_of_rank) {
  for (const auto type : types) {
    for (const int64_t count : sizes) {
      const at::Tensor output = at::empty({size, count}, mine(1, type).options());
      world.all_gather(output, mine(count, type));
      expect_equal(output, everyone(count, type));
    }
  }
}

TEST_P(Conformance, all_gather_in_place) {
  const int64_t count = 50001;
  const at::Tensor output = at::empty({size, count}, mine(1, at::kFloat).options());
  output[rank].copy_(mine(count, at::kFloat));
  world.all_gather(output, output[rank]);
  expect_equal(output, everyone(count, at::kFloat));
}

TEST_P(Conformance, broadcast_from_every_root) {
  for (const auto type : types) {
    for (int root = 0; root < size; ++root) {
      for (const int64_t count : sizes) {
        const at::Tensor tensor = mine(count, type);
        world.broadcast(tensor, root);
        expect_equal(tensor, values(root, count, type));
      }
    }
  }
}

TEST_P(Conformance, all_to_all_transposes_blocks) {
  for (const auto type : types) {
    for (const int64_t count : sizes) {
      const at::Tensor output = at::empty({size, count}, mine(1, type).options());
      world.all_to_all(output, mine(size * count, type));
      std::vector<at::Tensor> rows;
      for (int i = 0; i < size; ++i)
        rows.push_back(values(i, size * count, type).narrow(0, rank * count, count));
      expect_equal(output, at::stack(rows));
    }
  }
}

TEST_P(Conformance, messages_of_a_pair_arrive_in_order_and_by_tag) {
  if (size == 1) GTEST_SKIP() << "needs two ranks";
  const int next = (rank + 1) % size;
  const int previous = (rank + size - 1) % size;
  std::vector<Work> sends;
  std::vector<at::Tensor> kept;
  for (int i = 0; i < 20; ++i) {
    kept.push_back(place(at::full({i * 1000 + 1}, 100 * rank + i, at::kFloat)));
    // NCCL knows no tags: there the receiver must ask in the order of sending.
    sends.push_back(world.send_async(kept.back(), next, has_tags(GetParam()) ? i % 2 : 0));
  }
  std::vector<int> order;
  for (int i = 0; i < 20; ++i) order.push_back(has_tags(GetParam()) ? (i % 10) * 2 + (i < 10 ? 1 : 0) : i);
  for (const int i : order) {
    const at::Tensor tensor = place(at::zeros({i * 1000 + 1}, at::kFloat));
    world.receive(tensor, previous, has_tags(GetParam()) ? i % 2 : 0);
    expect_equal(tensor, at::full({i * 1000 + 1}, 100 * previous + i, at::kFloat));
  }
  for (const auto& work : sends) work.wait();
}

// As in a pipeline, whose ranks send different numbers of messages.
TEST_P(Conformance, messages_of_a_pair_do_not_disturb_what_all_do) {
  if (size == 1) GTEST_SKIP() << "needs two ranks";
  for (int i = 0; i < 3; ++i) {
    const at::Tensor message = mine(5, at::kFloat);
    if (rank == 0) world.send(message, 1);
    if (rank == 1) world.receive(message, 0);
    const at::Tensor sum = mine(17, at::kFloat);
    world.all_reduce(sum);
    expect_equal(sum, everyone(17, at::kFloat).sum(0));
  }
}

TEST_P(Conformance, many_operations_under_way_at_once) {
  std::vector<at::Tensor> tensors;
  std::vector<Work> works;
  for (int i = 0; i < 50; ++i) {
    tensors.push_back(mine(i * 1777, at::kFloat));
    works.push_back(world.all_reduce_async(tensors.back()));
  }
  for (int i = 49; i >= 0; --i) {
    works[i].wait();
    EXPECT_TRUE(works[i].done());
    expect_equal(tensors[i], everyone(i * 1777, at::kFloat).sum(0));
  }
}

TEST_P(Conformance, split_orders_by_key_and_isolates_groups) {
  const Communicator parity = world.split(rank % 2, -rank);  // reversed
  const int members = (size + 1 - rank % 2) / 2;
  ASSERT_EQ(parity.size(), members);
  EXPECT_EQ(parity.rank(), members - 1 - rank / 2);
  const at::Tensor tensor = mine(100, at::kFloat);
  parity.all_reduce(tensor);
  at::Tensor expected = at::zeros({100});
  for (int i = rank % 2; i < size; i += 2) expected += values(i, 100, at::kFloat);
  expect_equal(tensor, expected);
}

TEST_P(Conformance, groups_progress_independently) {
  const Communicator first = world.split(0, rank);
  const Communicator second = world.split(0, size - rank);
  const Communicator pairs = world.split(rank / 2, rank);
  const at::Tensor a = mine(300001, at::kFloat);
  const at::Tensor b = mine(200001, at::kBFloat16);
  const at::Tensor c = mine(100001, at::kInt);
  std::vector<Work> works;
  // Ranks start operations of different groups in different orders; NCCL needs the same order everywhere.
  if (rank % 2 == 0 || !has_tags(GetParam())) {
    works = {first.all_reduce_async(a), second.all_reduce_async(b), pairs.all_reduce_async(c)};
  } else {
    works = {pairs.all_reduce_async(c), second.all_reduce_async(b), first.all_reduce_async(a)};
  }
  for (const auto& work : works) work.wait();
  expect_equal(a, everyone(300001, at::kFloat).sum(0));
  expect_equal(b, everyone(200001, at::kBFloat16).sum(0, false, at::kBFloat16));
  const int partner = (rank ^ 1) < size ? (rank ^ 1) : -1;
  expect_equal(c, values(rank, 100001, at::kInt) +
                      (partner < 0 ? at::zeros({100001}, at::kInt) : values(partner, 100001, at::kInt)));
}

TEST_P(Conformance, the_same_bits_every_time_and_everywhere) {
  for (const auto type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const int64_t count : {1001, 300001}) {
      const at::Tensor input = place((values(rank, count, at::kFloat) * 0.37 + rank * 1.13).to(type));
      const at::Tensor once = input.clone();
      const at::Tensor again = input.clone();
      world.all_reduce(once);
      world.all_reduce(again);
      EXPECT_TRUE(at::equal(once, again));
      const at::Tensor everywhere = at::empty({size, count}, once.options());
      world.all_gather(everywhere, once);
      for (int i = 0; i < size; ++i) EXPECT_TRUE(at::equal(everywhere[i], once));
    }
  }
}

TEST_P(Conformance, sixteen_bit_sums_are_rounded_once_per_addition) {
  for (const auto type : {at::kBFloat16, at::kHalf}) {
    const at::Tensor tensor = place(at::full({50001}, 0.1, at::kFloat).to(type));
    world.all_reduce(tensor);
    const double expected = 0.1 * size;
    const double epsilon = type == at::kHalf ? 0x1p-11 : 0x1p-8;
    EXPECT_NEAR(tensor.cpu().to(at::kDouble).sub(expected).abs().max().item<double>(), 0,
                size * epsilon * expected);
  }
}

TEST_P(Conformance, texts_of_different_lengths) {
  const auto texts =
      world.gather_text(std::string(static_cast<size_t>(rank) * 5, 'a' + static_cast<char>(rank)));
  ASSERT_EQ(texts.size(), static_cast<size_t>(size));
  for (int i = 0; i < size; ++i) {
    EXPECT_EQ(texts[i], std::string(static_cast<size_t>(i) * 5, 'a' + static_cast<char>(i)));
  }
}

TEST_P(Conformance, barrier_waits_for_the_last) {
  world.barrier();
  const auto start = std::chrono::steady_clock::now();
  if (rank == size - 1) std::this_thread::sleep_for(std::chrono::milliseconds(60));
  world.barrier();
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(55));
}

TEST_P(Conformance, mistakes_of_ours_are_refused_before_anything_is_sent) {
  if (size == 1) GTEST_SKIP() << "needs two ranks";
  EXPECT_THROW(world.broadcast(mine(1, at::kFloat), size), std::logic_error);
  EXPECT_THROW(world.send(mine(1, at::kFloat), rank), std::logic_error);
  EXPECT_THROW(world.all_reduce(mine(4, at::kFloat).view({2, 2}).t()), std::logic_error);
  EXPECT_THROW(world.all_reduce(mine(4, at::kBool)), std::logic_error);
  EXPECT_THROW(world.all_gather(mine(3, at::kFloat), mine(3, at::kFloat)), std::logic_error);
  EXPECT_THROW(world.all_gather(mine(size, at::kDouble), mine(1, at::kFloat)), std::logic_error);
}

INSTANTIATE_TEST_SUITE_P(Transports, Conformance, testing::ValuesIn(test_transports()),
                         [](const auto& parameter) { return parameter.param; });
}  // namespace
}  // namespace tessera
