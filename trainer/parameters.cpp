#include "trainer/parameters.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <regex>
#include <unordered_set>

#include "recipes/error.h"

namespace tessera {

std::vector<NamedParameter> parameters_once(const torch::nn::Module& module) {
  std::vector<NamedParameter> once;
  std::unordered_set<const at::TensorImpl*> seen;
  for (const auto& item : module.named_parameters()) {
    if (seen.insert(item.value().unsafeGetTensorImpl()).second) once.push_back({item.key(), item.value()});
  }
  return once;
}

std::vector<std::string> name_patterns(const std::vector<std::string>& names) {
  static const std::regex numbers("\\.[0-9]+\\.");
  std::vector<std::string> patterns;
  for (const auto& name : names) {
    const std::string pattern = std::regex_replace(name, numbers, ".*.");
    if (std::find(patterns.begin(), patterns.end(), pattern) == patterns.end()) patterns.push_back(pattern);
  }
  return patterns;
}

std::vector<Parameter> collect_parameters(torch::nn::Module& module, at::ScalarType working) {
  std::vector<PlacedTensor> tensors;
  for (const auto& parameter : parameters_once(module)) {
    const TensorPiece whole = whole_piece("", parameter.tensor);
    tensors.push_back(
        {parameter.name, parameter.tensor, {.global_shape = whole.global_shape, .offset = whole.offset}});
  }
  return collect_parameters(tensors, working);
}

std::vector<Parameter> collect_parameters(const std::vector<PlacedTensor>& tensors, at::ScalarType working) {
  const torch::NoGradGuard no_grad;
  std::vector<Parameter> parameters;
  for (const auto& placed : tensors) {
    at::Tensor tensor = placed.tensor;
    if (!tensor.requires_grad()) continue;
    Parameter parameter{.name = placed.name, .working = tensor, .master = tensor.detach()};
    parameter.placement = placed.placement;
    if (tensor.scalar_type() != at::kFloat) parameter.master = tensor.detach().to(at::kFloat);
    // A tied parameter is one TensorImpl, so replacing its data serves all of its holders.
    if (tensor.scalar_type() != working) tensor.set_data(parameter.master.to(working));
    if (tensor.scalar_type() == at::kFloat) parameter.master = tensor.detach();
    if (placed.placement.global_shape.size() <= 1) parameter.weight_decay_scale = 0;
    parameters.push_back(std::move(parameter));
  }
  return parameters;
}

void apply_groups(std::vector<Parameter>& parameters, const std::vector<ParameterGroup>& groups,
                  const std::vector<std::string>& elsewhere) {
  std::vector<double> own;
  for (const auto& parameter : parameters) own.push_back(parameter.learning_rate_scale);
  for (const auto& group : groups) {
    bool matched = false;
    for (size_t i = 0; i < parameters.size(); ++i) {
      Parameter& parameter = parameters[i];
      if (fnmatch(group.pattern.c_str(), parameter.name.c_str(), 0) != 0) continue;
      matched = true;
      parameter.learning_rate_scale = own[i] * group.learning_rate_scale;
      parameter.weight_decay_scale = group.weight_decay_scale;
    }
    const auto matches = [&](const std::string& name) {
      return fnmatch(group.pattern.c_str(), name.c_str(), 0) == 0;
    };
    if (matched || std::any_of(elsewhere.begin(), elsewhere.end(), matches)) continue;
    std::vector<std::string> names = elsewhere;
    for (const auto& parameter : parameters) names.push_back(parameter.name);
    const std::string near = nearest(group.pattern, names);
    throw Error(fmt::format(
        "optimizer.groups: pattern '{}' matches none of the {} trainable parameters, such as '{}'",
        group.pattern, names.size(), near.empty() && !names.empty() ? names.front() : near));
  }
}

void refresh_working(const std::vector<Parameter>& parameters) {
  const torch::NoGradGuard no_grad;
  for (const auto& parameter : parameters) {
    if (parameter.has_copy()) parameter.working.detach().copy_(parameter.master);
  }
}

}  // namespace tessera
