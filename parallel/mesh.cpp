#include "parallel/mesh.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>

#include "recipes/error.h"

namespace tessera {

const char* axis_name(Axis axis) {
  static const char* const names[num_axes] = {"pipeline", "replicate", "shard", "context", "tensor"};
  return names[static_cast<int>(axis)];
}

namespace {

/// The ranks along replicate. That the user's sizes divide the ranks is check_ranks()'s to tell.
int remaining_ranks(const MeshSizes& sizes, int num_ranks) {
  const int product = sizes.shard * sizes.context * sizes.tensor * sizes.pipeline;
  if (product < 1 || num_ranks % product != 0)
    throw std::logic_error(fmt::format("a mesh of {} x n ranks for {} ranks", product, num_ranks));
  return num_ranks / product;
}

}  // namespace

Mesh::Mesh() : Mesh(Communicator(), {}) {}

Mesh::Mesh(const Communicator& world, const MeshSizes& sizes)
    : world_(world),
      sizes_{sizes.pipeline, remaining_ranks(sizes, world.size()), sizes.shard, sizes.context, sizes.tensor} {
  int rest = world.rank();
  for (int axis = num_axes - 1; axis >= 0; --axis) {
    coordinates_[axis] = rest % sizes_[axis];
    rest /= sizes_[axis];
  }
  for (int axis = 0; axis < num_axes; ++axis) {
    const bool ring = static_cast<Axis>(axis) == Axis::context;
    along_[axis] = group({static_cast<Axis>(axis)}, ring ? GroupUse::messages : GroupUse::collectives);
  }
  data_ = group({Axis::replicate, Axis::shard});
  gradient_ = group({Axis::replicate, Axis::shard, Axis::context});
  replicas_ = group({Axis::replicate, Axis::context});
  parts_ = group({Axis::pipeline, Axis::shard, Axis::tensor});
  const int stages = size(Axis::pipeline), stage = coordinate(Axis::pipeline);
  if (stages > 1) {
    const bool at_end = stage == 0 || stage == stages - 1;
    ends_ = along(Axis::pipeline).subgroup(at_end ? 0 : stage, stage);
  }
}

Communicator Mesh::group(std::initializer_list<Axis> free, GroupUse use) const {
  int color = 0;
  int members = 1;
  for (int axis = 0; axis < num_axes; ++axis) {
    const bool is_free = std::find(free.begin(), free.end(), static_cast<Axis>(axis)) != free.end();
    if (is_free) members *= sizes_[axis];
    color = color * sizes_[axis] + (is_free ? 0 : coordinates_[axis]);
  }
  if (members == 1) return {};
  if (members == world_.size()) return world_.counted_apart();
  return world_.split(color, world_.rank(), use);
}

std::vector<std::pair<std::string, Traffic>> Mesh::traffic() const {
  std::vector<std::pair<std::string, Traffic>> all;
  const auto add = [&all](const char* name, const Communicator& group) {
    if (group.size() > 1) all.emplace_back(name, group.traffic());
  };
  for (int axis = num_axes - 1; axis >= 0; --axis) add(axis_name(static_cast<Axis>(axis)), along_[axis]);
  add("data", data_);
  add("gradient", gradient_);
  add("replicas", replicas_);
  add("parts", parts_);
  add("world", world_);
  return all;
}

std::string Mesh::describe() const {
  std::vector<std::string> parts;
  for (int axis = 0; axis < num_axes; ++axis) {
    parts.push_back(fmt::format("{} {}", axis_name(static_cast<Axis>(axis)), sizes_[axis]));
  }
  return fmt::format("{} rank{} = {}", world_.size(), world_.size() == 1 ? "" : "s", join(parts, " x "));
}

}  // namespace tessera
