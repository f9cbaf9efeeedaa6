#include "trainer/strategies.h"

#include "parallel/pinned_memory.h"
#include "parallel/replicate.h"
#include "parallel/replicate_chunks.h"
#include "parallel/shard.h"

namespace tessera {
namespace {

at::ScalarType reduce_type(const Recipe& recipe) {
  return recipe.parallel.reduce_precision == ReducePrecision::working ? scalar_type(recipe.train.precision)
                                                                      : at::ScalarType::Undefined;
}

/// Only what computes: nobody steps them, so they need no masters.
std::vector<Parameter> frozen_parameters(const std::vector<PlacedTensor>& placed, at::ScalarType working) {
  std::vector<Parameter> frozen;
  for (const auto& each : placed) {
    at::Tensor tensor = each.tensor;
    if (tensor.requires_grad()) continue;
    tensor.set_data(tensor.to(working));
    frozen.push_back({.name = each.name, .working = tensor, .master = tensor, .placement = each.placement});
  }
  return frozen;
}

void masters_to_host(std::vector<Parameter>& parameters, at::Device device) {
  for (auto& parameter : parameters) {
    parameter.master = host_empty(parameter.master.sizes(), at::kFloat, device);
  }
}

Distributed replicate(const std::vector<PlacedTensor>& placed, const Recipe& recipe, const Meshes& meshes) {
  const at::ScalarType working = scalar_type(recipe.train.precision);
  const bool offload = recipe.parallel.offload != Offload::none;
  allocate(placed);
  for (const auto& each : placed) {
    at::Tensor tensor = each.tensor;
    tensor.set_data(tensor.to(meshes.device, offload ? working : tensor.scalar_type()));
  }
  Distributed result;
  result.parameters = collect_parameters(placed, working);
  if (offload) masters_to_host(result.parameters, meshes.device);
  result.frozen = frozen_parameters(placed, working);
  std::vector<NamedParameter> trained;
  for (const auto& parameter : result.parameters) trained.push_back({parameter.name, parameter.working});
  ReplicateOptions options;
  options.bucket_bytes = static_cast<int64_t>(recipe.parallel.bucket_megabytes * 1048576);
  options.reduce_dtype = reduce_type(recipe);
  options.host = meshes.host.gradient();
  std::vector<int> chunks;
  for (const auto& parameter : result.parameters) chunks.push_back(parameter.placement.chunk);
  const Communicator& ranks = meshes.mesh.gradient();
  if (recipe.parallel.pipeline_chunks > 1) {
    const auto num_chunks = static_cast<size_t>(recipe.parallel.pipeline_chunks);
    result.strategy = std::make_unique<ReplicateChunks>(trained, chunks, num_chunks, ranks, options);
  } else {
    result.strategy = std::make_unique<Replicate>(trained, ranks, options);
  }
  return result;
}

Distributed shard(const std::vector<PlacedTensor>& placed, const Recipe& recipe, const Meshes& meshes) {
  ShardOptions options;
  options.zero = static_cast<int>(recipe.parallel.zero);
  options.prefetch = recipe.parallel.prefetch;
  options.offload = recipe.parallel.offload;
  options.working = scalar_type(recipe.train.precision);
  options.reduce_dtype = reduce_type(recipe);
  options.shard = meshes.mesh.along(Axis::shard);
  options.replicas = meshes.mesh.replicas();
  options.host = meshes.host.gradient();
  std::vector<UnitParameter> units;
  for (const auto& each : placed) {
    units.push_back({each.name, each.tensor, each.placement.unit, each.placement.chunk});
  }
  auto strategy = std::make_unique<Shard>(units, options);
  Distributed result;
  for (size_t i = 0; i < placed.size(); ++i) {
    const auto& part = strategy->parts()[i];
    Parameter parameter{.name = placed[i].name, .working = part.working, .master = part.master};
    parameter.placement = placed[i].placement;
    if (!parameter.placement.offset.empty()) parameter.placement.offset[0] += part.first_row;
    if (parameter.placement.global_shape.size() <= 1) parameter.weight_decay_scale = 0;
    (part.trained ? result.parameters : result.frozen).push_back(std::move(parameter));
  }
  result.strategy = std::move(strategy);
  return result;
}

}  // namespace

at::ScalarType scalar_type(Precision precision) {
  switch (precision) {
    case Precision::bf16:
      return at::kBFloat16;
    case Precision::fp16:
      return at::kHalf;
    default:
      return at::kFloat;
  }
}

Distributed distribute(const std::vector<PlacedTensor>& placed, const Recipe& recipe, const Meshes& meshes) {
  return meshes.mesh.size(Axis::shard) > 1 ? shard(placed, recipe, meshes)
                                           : replicate(placed, recipe, meshes);
}

}  // namespace tessera
