// Counted bytes against the formulas of the algorithms, for operations and for whole steps of strategies.
#include "tests/ranks/traffic.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "parallel/mesh.h"
#include "parallel/pipeline_links.h"
#include "parallel/replicate.h"
#include "tests/ranks/shard_net.h"
#include "tests/ranks/world.h"

namespace tessera {
namespace {

/// Nothing, small, the largest small one, uneven ones of one lane and of several.
constexpr int64_t message_sizes[] = {0, 1, 7, 1000, 8192, 8193, 100003, 1 << 20};

class TrafficTest : public testing::TestWithParam<at::ScalarType> {
 protected:
  void expect(int64_t bytes, const char* what, int64_t count) {
    const Traffic now = group.traffic();
    EXPECT_EQ(now.operations, before.operations + 1) << what << " of " << count;
    EXPECT_EQ(now.bytes - before.bytes, bytes) << what << " of " << count;
    before = now;
  }
  at::Tensor zeros(int64_t count) const { return at::zeros({count}, GetParam()); }

  const Communicator group = test_world().communicator().counted_apart();
  const int rank = group.rank(), size = group.size();
  const int64_t width = static_cast<int64_t>(c10::elementSize(GetParam()));
  Traffic before;
};

INSTANTIATE_TEST_SUITE_P(Types, TrafficTest, testing::Values(at::kFloat, at::kBFloat16));

TEST_P(TrafficTest, collectives_send_what_their_algorithms_say) {
  if (size == 1) GTEST_SKIP() << "needs two ranks";
  for (const int64_t count : message_sizes) {
    group.all_reduce(zeros(count));
    expect(all_reduce_bytes(count, width, rank, size), "all-reduce", count);
    group.reduce_scatter(zeros(count), zeros(count * size));
    expect((size - 1) * count * width, "reduce-scatter", count);
    group.all_gather(zeros(count * size), zeros(count));
    expect((size - 1) * count * width, "all-gather", count);
    group.all_to_all(zeros(count * size), zeros(count * size));
    expect((size - 1) * count * width, "all-to-all", count);
  }
  group.barrier();
  expect(0, "barrier", 0);
}

TEST_P(TrafficTest, all_ranks_together_send_no_more_than_needed) {
  if (size == 1) GTEST_SKIP() << "needs two ranks";
  for (const int64_t count : message_sizes) {
    const Traffic start = group.traffic();
    group.broadcast(zeros(count), size - 1);
    const Traffic middle = group.traffic();
    group.all_reduce(zeros(count));
    const at::Tensor sent =
        at::tensor({middle.bytes - start.bytes, group.traffic().bytes - middle.bytes}, at::kLong);
    test_world().communicator().all_reduce(sent);
    EXPECT_EQ(sent[0].item<int64_t>(), (size - 1) * count * width);
    if (count * width <= 32 << 10) continue;
    EXPECT_EQ(sent[1].item<int64_t>(), 2 * (size - 1) * count * width);
  }
}

TEST_P(TrafficTest, a_send_counts_where_it_starts) {
  if (size == 1) GTEST_SKIP() << "needs two ranks";
  for (const int64_t count : message_sizes) {
    if (rank == 0) group.send(zeros(count), 1);
    if (rank == 1) group.receive(zeros(count), 0);
    if (rank < 2) expect(rank == 0 ? count * width : 0, "send", count);
  }
}

TEST(TrafficAlone, a_group_of_one_sends_nothing) {
  const Communicator alone;
  alone.all_reduce(at::zeros({100}));
  EXPECT_EQ(alone.traffic().operations, 0);
  EXPECT_EQ(alone.counted_apart().traffic().bytes, 0);
}

TEST(TrafficMesh, groups_of_the_same_ranks_are_counted_apart) {
  const World& world = test_world();
  const Mesh mesh(world.communicator().counted_apart(), {.shard = world.size()});
  if (world.size() == 1) {
    EXPECT_TRUE(mesh.traffic().empty());
    return;
  }
  mesh.along(Axis::shard).barrier();
  mesh.data().barrier();
  mesh.data().all_reduce(at::zeros({10}));
  std::map<std::string, int64_t> operations, bytes;
  for (const auto& item : mesh.traffic()) {
    operations[item.first] = item.second.operations;
    bytes[item.first] = item.second.bytes;
  }
  EXPECT_EQ(operations, (std::map<std::string, int64_t>{
                            {"shard", 1}, {"data", 2}, {"gradient", 0}, {"parts", 0}, {"world", 0}}));
  EXPECT_EQ(bytes["data"], all_reduce_bytes(10, 4, world.rank(), world.size()));
}

TEST(TrafficMesh, links_and_ends_of_a_pipeline_count_as_its_axis) {
  const World& world = test_world();
  if (world.size() == 1) GTEST_SKIP() << "needs two ranks";
  const Mesh mesh(world.communicator().counted_apart(), {.pipeline = world.size()});
  const PipelineLinks links(mesh.along(Axis::pipeline));
  const Work received = links.receive(at::zeros({10}), Phase::forward);
  links.send(at::zeros({10}), Phase::forward).wait();
  received.wait();
  const bool at_end = mesh.ends().size() == 2;
  mesh.ends().all_reduce(at::zeros({7}));
  const auto traffic = mesh.traffic();
  const auto pipeline =
      std::find_if(traffic.begin(), traffic.end(), [](const auto& item) { return item.first == "pipeline"; });
  ASSERT_NE(pipeline, traffic.end());
  EXPECT_EQ(at_end, world.rank() == 0 || world.rank() + 1 == world.size());
  EXPECT_EQ(pipeline->second.operations, at_end ? 3 : 2);
  EXPECT_EQ(pipeline->second.bytes, 40 + (at_end ? 28 : 0));
}

class TrafficShard : public testing::TestWithParam<std::tuple<int, int>> {};
INSTANTIATE_TEST_SUITE_P(Stages, TrafficShard,
                         testing::Combine(testing::Values(1, 2, 3), testing::Values(1, 3)));

TEST_P(TrafficShard, a_step_sends_the_parts_of_its_units) {
  const auto [zero, micro_steps] = GetParam();
  const Communicator& world = test_world().communicator();
  if (world.size() == 1) GTEST_SKIP() << "needs two ranks";
  ShardOptions options;
  options.zero = zero;
  options.shard = world.counted_apart();
  options.host = world.counted_apart();
  ShardNet net({"block2", "block3.in"});
  Shard shard(net.parameters, options);
  Traffic before;
  for (int step = 0; step < 2; ++step) {
    before = options.shard.traffic();
    shard.parameters_changed();
    shard.begin_step();
    for (int i = 0; i < micro_steps; ++i) {
      shard.begin_micro_step(i + 1 == micro_steps);
      net.loss(torch::arange(5, torch::kLong), true, &shard).backward();
      shard.end_micro_step();
    }
    shard.finish();
  }
  int64_t elements = 0, operations = 0;
  for (size_t unit = 0; unit <= ShardNet::num_blocks; ++unit) {
    // The last block stays from forward to backward.
    const int64_t per_micro_step = unit == ShardNet::num_blocks ? 1 : 2;
    // What is kept whole needs only the trained ones anew.
    const bool frozen = unit == 2;
    const int64_t gathers = zero < 3 ? !frozen : unit == 0 ? 1 : micro_steps * per_micro_step;
    const int64_t gather_size = zero < 3 ? shard.reduce_size(unit) : shard.gather_size(unit);
    const int64_t reduces = frozen ? 0 : zero == 1 ? 1 : micro_steps;
    elements += gathers * gather_size + reduces * shard.reduce_size(unit);
    operations += gathers + reduces;
  }
  EXPECT_EQ(shard.reduce_size(2), 0);
  EXPECT_LT(shard.reduce_size(3), shard.gather_size(3));
  const Traffic now = options.shard.traffic();
  EXPECT_EQ(now.operations - before.operations, operations);
  EXPECT_EQ(now.bytes - before.bytes, elements * 4 / world.size() * (world.size() - 1));
  int64_t reported = 0;
  for (const auto& message : shard.statistics()) reported += message.bytes;
  EXPECT_EQ(reported, elements * 4);
}

TEST(TrafficReplicate, a_step_sends_its_buckets) {
  const Communicator group = test_world().communicator().counted_apart();
  if (group.size() == 1) GTEST_SKIP() << "needs two ranks";
  ReplicateOptions options;
  options.bucket_bytes = 100 << 10;
  options.host = test_world().communicator().counted_apart();
  std::vector<NamedParameter> weights;
  for (const int64_t count : {40001, 13, 20000, 300, 5}) {
    weights.push_back({std::to_string(count), torch::ones({count}).set_requires_grad(true)});
  }
  Replicate replicate(weights, group, options);
  Traffic before;
  for (int step = 0; step < 2; ++step) {  // in the first one the order of buckets is agreed
    before = group.traffic();
    replicate.begin_step();
    for (int i = 0; i < 3; ++i) {
      replicate.begin_micro_step(i == 2);
      at::Tensor sum = torch::zeros({});
      for (const auto& weight : weights) sum = sum + weight.tensor.sum();
      sum.backward();
      replicate.end_micro_step();
    }
    replicate.finish();
  }
  int64_t bytes = 0, whole = 0;
  const auto buckets = replicate.statistics();
  for (const auto& bucket : buckets) {
    bytes += all_reduce_bytes(bucket.bytes / 4, 4, group.rank(), group.size());
    whole += bucket.bytes;
  }
  EXPECT_EQ(whole, 4 * (40001 + 13 + 20000 + 300 + 5));
  EXPECT_EQ(group.traffic().operations - before.operations, static_cast<int64_t>(buckets.size()));
  EXPECT_EQ(group.traffic().bytes - before.bytes, bytes);
}

}  // namespace
}  // namespace tessera
