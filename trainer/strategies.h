#pragma once
#include <memory>
#include <vector>

#include "parallel/mesh.h"
#include "parallel/strategy.h"
#include "recipes/recipe.h"
#include "trainer/parameters.h"

namespace tessera {

/// The type in which the model computes.
at::ScalarType scalar_type(Precision precision);

/// A model's parameters as this rank steps them, and what keeps them the same on all ranks.
struct Distributed {
  std::unique_ptr<Strategy> strategy;
  std::vector<Parameter> parameters;  ///< those that are trained; values not set yet
  std::vector<Parameter> frozen;      ///< the others, never stepped; values not set yet
};

/// The meshes of a run, alike but for the tensors that they carry.
struct Meshes {
  at::Device device;  ///< of the model
  Mesh mesh;          ///< for tensors of that device
  Mesh host;          ///< for CPU tensors
};

/// Gives the placed parameters their memory, whole or sharded as the recipe's `parallel` says.
Distributed distribute(const std::vector<PlacedTensor>& placed, const Recipe& recipe, const Meshes& meshes);

}  // namespace tessera
