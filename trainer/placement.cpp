#include "trainer/placement.h"

#include <ATen/ATen.h>

#include <unordered_set>

#include "trainer/model.h"

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

int64_t split_dim(const Plan& plan, const std::string& name, int64_t dims) {
  for (const auto& rule : plan) {
    if (!plan_matches(components(rule.pattern), components(name))) continue;
    // The bias of a layer split by its inputs is added once, to the sum.
    return rule.split != Split::rows ? 0 : dims == 2 ? 1 : -1;
  }
  return -1;
}

size_t unit_of(const std::string& name) {
  const auto parts = components(name);
  return parts.front() == "layers" ? std::stoul(parts[1]) + 1 : 0;
}

std::vector<PlacedTensor> place_parameters(Model& model, const Mesh& mesh) {
  const Plan plan = model.plan();
  const int64_t rank = mesh.coordinate(Axis::tensor), size = mesh.size(Axis::tensor);
  std::vector<PlacedTensor> placed;
  std::unordered_set<const at::TensorImpl*> seen;
  for (const auto& item : model.named_parameters()) {
    at::Tensor tensor = item.value();
    if (!seen.insert(tensor.unsafeGetTensorImpl()).second) continue;
    Placement place;
    place.global_shape = tensor.sizes().vec();
    place.offset.assign(place.global_shape.size(), 0);
    place.unit = unit_of(item.key());
    const int64_t dim = size == 1 ? -1 : split_dim(plan, item.key(), tensor.dim());
    place.split = dim >= 0;
    if (place.split) {
      std::vector<int64_t> shape = place.global_shape;
      place.offset[dim] = rank * shape[dim] / size;
      shape[dim] = (rank + 1) * shape[dim] / size - place.offset[dim];
      tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
    }
    place.counted = place.split || rank == 0;
    // Ranks that differ in their samples or positions hold the same; of whole parameters those of the tensor
    // axis too.
    const int64_t alike = place.split ? 1 : size;
    const int replica =
        mesh.coordinate(Axis::replicate) * mesh.size(Axis::context) + mesh.coordinate(Axis::context);
    place.holders = static_cast<int>(mesh.size(Axis::replicate) * mesh.size(Axis::context) * alike);
    place.holder = static_cast<int>(replica * alike + (place.split ? 0 : rank));
    placed.push_back({item.key(), tensor, std::move(place)});
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
