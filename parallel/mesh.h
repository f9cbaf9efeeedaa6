#pragma once
#include <array>
#include <string>
#include <utility>
#include <vector>

#include "parallel/communicator.h"

namespace tessera {

/// The ways to divide the work among ranks, from the outermost (neighbours far apart in rank) to the
/// innermost.
enum class Axis { pipeline, replicate, shard, context, tensor };
constexpr int num_axes = 5;
const char* axis_name(Axis axis);

/// Sizes of the axes; replicate takes the ranks that remain.
struct MeshSizes {
  int shard = 1;
  int context = 1;
  int tensor = 1;
  int pipeline = 1;
};

/// The ranks of the job as a grid. A rank's coordinates follow from its number: tensor runs fastest, then
/// context, shard, replicate, pipeline, so that those who talk most sit on one host.
class Mesh {
 public:
  Mesh();  ///< one rank
  /// Called by all ranks of `world`, whose number the sizes divide: check_ranks() has passed.
  Mesh(const Communicator& world, const MeshSizes& sizes);

  int size(Axis axis) const { return sizes_[static_cast<size_t>(axis)]; }
  int coordinate(Axis axis) const { return coordinates_[static_cast<size_t>(axis)]; }
  const Communicator& world() const { return world_; }
  /// The ranks that differ from this one along `axis` only. Messages go along context (a ring); those of a
  /// pipeline go through PipelineLinks.
  const Communicator& along(Axis axis) const { return along_[static_cast<size_t>(axis)]; }
  /// The ranks that see different samples: replicate and shard together.
  const Communicator& data() const { return data_; }
  /// The ranks among which a gradient of an unsharded parameter is summed: replicate, shard and context
  /// together.
  const Communicator& gradient() const { return gradient_; }
  /// Those of them that hold the same part of a sharded parameter: replicate and context together.
  const Communicator& replicas() const { return replicas_; }
  /// The ranks that hold the parts of one model: pipeline, shard and tensor together.
  const Communicator& parts() const { return parts_; }
  /// The first and the last stage of this rank's pipeline, where it is one of them and they differ; else
  /// alone.
  const Communicator& ends() const { return ends_; }
  /// Whether this rank speaks for its samples and positions: others on the tensor and pipeline axes see the
  /// same. It is the one that has the loss.
  bool speaks() const {
    return coordinate(Axis::tensor) == 0 && coordinate(Axis::pipeline) == size(Axis::pipeline) - 1;
  }

  /// What this rank has sent so far, by group: "tensor", "shard" and the other axes ("pipeline" with its
  /// links and ends()), "data", "gradient", "replicas", "parts", and "world" for what concerns all. Groups of
  /// one are left out.
  std::vector<std::pair<std::string, Traffic>> traffic() const;
  /// "4 ranks = pipeline 1 x replicate 4 x shard 1 x context 1 x tensor 1"
  std::string describe() const;

 private:
  // The ranks that agree in all coordinates but those of `free`.
  Communicator group(std::initializer_list<Axis> free, GroupUse use = GroupUse::collectives) const;

  Communicator world_;
  std::array<int, num_axes> sizes_;
  std::array<int, num_axes> coordinates_;
  std::array<Communicator, num_axes> along_;
  Communicator data_;
  Communicator gradient_;
  Communicator replicas_;
  Communicator parts_;
  Communicator ends_;
};

}  // namespace tessera
