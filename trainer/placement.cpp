#include "trainer/placement.h"

#include <ATen/ATen.h>

#include "trainer/blocks/lora.h"
#include "trainer/model.h"
#include "trainer/pipeline_parts.h"

namespace tessera {
namespace {

std::vector<std::string> components(const std::string& name) {
  std::vector<std::string> parts{""};
  for (const char c : name) {
    if (c == '.') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

/// "*" stands for one component; `name` may go on after the pattern ("….weight").
bool plan_matches(const std::vector<std::string>& pattern, const std::vector<std::string>& name) {
  if (name.size() < pattern.size()) return false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != "*" && pattern[i] != name[i]) return false;
  }
  return true;
}

}  // namespace

namespace {

/// Of a layer's low-rank part b a, which the plan knows by the layer alone: `a` goes with its inputs, `b`
/// with its outputs; the table of an embedding with its rows.
int64_t split_dim_of_lora(Split split, const std::string& name) {
  if (name.ends_with(".a")) return split == Split::rows ? 1 : split == Split::vocabulary ? 0 : -1;
  return split == Split::columns ? 0 : -1;
}

}  // namespace

void Placement::copy_part(const at::Tensor& whole, const at::Tensor& local) const {
  if (local.numel() == 0) return;
  at::Tensor part = whole;
  for (int64_t dim = 0; dim < part.dim(); ++dim) {
    part = part.narrow(dim, offset[static_cast<size_t>(dim)], local.size(dim));
  }
  local.copy_(part);
}

int64_t split_dim(const Plan& plan, const std::string& name, int64_t dims) {
  for (const auto& rule : plan) {
    if (!plan_matches(components(rule.pattern), components(name))) continue;
    if (is_low_rank(name)) return split_dim_of_lora(rule.split, name);
    // The bias of a layer split by its inputs is added once, to the sum.
    return rule.split != Split::rows ? 0 : dims == 2 ? 1 : -1;
  }
  return -1;
}

size_t unit_of(const std::string& name) {
  const auto parts = components(name);
  return parts.front() == "layers" ? std::stoul(parts[1]) + 1 : 0;
}

namespace {

void place_rectangle(Placement& place, const at::Tensor& tensor, int64_t dim, const Mesh& mesh) {
  const int64_t rank = mesh.coordinate(Axis::tensor), size = mesh.size(Axis::tensor);
  place.global_shape = tensor.sizes().vec();
  place.offset.assign(place.global_shape.size(), 0);
  place.split = size > 1 && dim >= 0;
  if (!place.split) return;
  std::vector<int64_t> shape = place.global_shape;
  place.offset[dim] = rank * shape[dim] / size;
  shape[dim] = (rank + 1) * shape[dim] / size - place.offset[dim];
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
}

// Ranks that differ in their samples or positions hold the same; of whole parameters those of the tensor axis
// too, of tied ones those at the pipeline's other end.
void count_holders(Placement& place, const Mesh& mesh) {
  const bool first_stage = mesh.coordinate(Axis::pipeline) == 0;
  const auto among = [&place](int rank, int size) {
    place.holder = place.holder * size + rank;
    place.holders *= size;
  };
  among(mesh.coordinate(Axis::replicate), mesh.size(Axis::replicate));
  among(mesh.coordinate(Axis::context), mesh.size(Axis::context));
  if (!place.split) among(mesh.coordinate(Axis::tensor), mesh.size(Axis::tensor));
  if (place.tied) among(first_stage ? 0 : 1, 2);
  place.counted = (place.split || mesh.coordinate(Axis::tensor) == 0) && (!place.tied || first_stage);
}

}  // namespace

std::vector<PlacedTensor> place_parameters(Model& model, const Mesh& mesh) {
  return place_parameters(model, mesh, {1, {{0, model.blocks().size()}}, {true}});
}

std::vector<PlacedTensor> place_parameters(Model& model, const Mesh& mesh, const PipelineParts& parts) {
  const Plan plan = model.plan();
  std::vector<PlacedTensor> placed;
  for (const auto& [name, tensor] : parameters_once(model)) {
    Placement place;
    place.chunk = parts.chunk_with(name, mesh.coordinate(Axis::pipeline));
    if (place.chunk < 0) continue;
    place.tied = parts.tied(name);
    place.unit = unit_of(name);
    place_rectangle(place, tensor, split_dim(plan, name, tensor.dim()), mesh);
    count_holders(place, mesh);
    placed.push_back({name, tensor, std::move(place)});
  }
  return placed;
}

void allocate(const std::vector<PlacedTensor>& tensors) {
  for (const auto& placed : tensors) {
    at::Tensor tensor = placed.tensor;
    tensor.set_data(at::empty(tensor.sizes(), tensor.scalar_type()));
  }
}

}  // namespace tessera
