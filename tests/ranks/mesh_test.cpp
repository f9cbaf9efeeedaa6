#include "parallel/mesh.h"

#include <gtest/gtest.h>

#include "tests/ranks/world.h"

namespace tessera {
namespace {

// The ranks of the world that a group consists of, in its order.
std::vector<int> members(const Communicator& group) {
  std::vector<int> ranks;
  for (const auto& text : group.gather_text(std::to_string(test_world().rank())))
    ranks.push_back(std::stoi(text));
  return ranks;
}

TEST(Mesh, replicate_takes_the_remaining_ranks) {
  const World& world = test_world();
  const Mesh mesh(world.communicator(), {});
  EXPECT_EQ(mesh.size(Axis::replicate), world.size());
  EXPECT_EQ(mesh.coordinate(Axis::replicate), world.rank());
  EXPECT_EQ(mesh.along(Axis::replicate).size(), world.size());
  EXPECT_EQ(mesh.along(Axis::tensor).size(), 1);
  EXPECT_EQ(mesh.data().size(), world.size());
}

TEST(Mesh, neighbours_along_tensor_are_next_to_each_other) {
  const World& world = test_world();
  if (world.size() % 2 != 0) {
    EXPECT_THROW(Mesh(world.communicator(), {.tensor = 2}), std::logic_error);
    return;
  }
  const Mesh mesh(world.communicator(), {.tensor = 2});
  const int rank = world.rank();
  EXPECT_EQ(members(mesh.along(Axis::tensor)), (std::vector<int>{rank / 2 * 2, rank / 2 * 2 + 1}));
  std::vector<int> replicas;
  for (int i = rank % 2; i < world.size(); i += 2) replicas.push_back(i);
  EXPECT_EQ(members(mesh.along(Axis::replicate)), replicas);
  EXPECT_EQ(members(mesh.gradient()), replicas);
  EXPECT_EQ(mesh.coordinate(Axis::tensor), rank % 2);
}

TEST(Mesh, data_joins_replicate_and_shard_but_gradient_context_too) {
  const World& world = test_world();
  if (world.size() != 4) GTEST_SKIP() << "needs four ranks";
  const Mesh mesh(world.communicator(), {.shard = 2, .context = 2});
  EXPECT_EQ(members(mesh.data()), (std::vector<int>{world.rank() % 2, world.rank() % 2 + 2}));
  EXPECT_EQ(mesh.gradient().size(), 4);
  EXPECT_EQ(mesh.size(Axis::replicate), 1);
}
}  // namespace
}  // namespace tessera
