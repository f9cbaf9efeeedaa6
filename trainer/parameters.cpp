#include "trainer/parameters.h"

#include <fmt/format.h>
#include <fnmatch.h>

#include <unordered_set>

#include "recipes/error.h"

namespace tessera {

std::vector<Parameter> collect_parameters(torch::nn::Module& module, at::ScalarType working) {
  const torch::NoGradGuard no_grad;
  std::vector<Parameter> parameters;
  std::unordered_set<const at::TensorImpl*> seen;
  for (auto& item : module.named_parameters()) {
    at::Tensor tensor = item.value();
    if (!tensor.requires_grad() || !seen.insert(tensor.unsafeGetTensorImpl()).second) continue;
    Parameter parameter{.name = item.key(), .working = tensor, .master = tensor.detach()};
    if (tensor.scalar_type() != at::kFloat) parameter.master = tensor.detach().to(at::kFloat);
    // A tied parameter is one TensorImpl, so replacing its data serves all of its holders.
    if (tensor.scalar_type() != working) tensor.set_data(parameter.master.to(working));
    if (tensor.scalar_type() == at::kFloat) parameter.master = tensor.detach();
    if (tensor.dim() <= 1) parameter.weight_decay_scale = 0;
    parameters.push_back(std::move(parameter));
  }
  return parameters;
}

void apply_groups(std::vector<Parameter>& parameters, const std::vector<ParameterGroup>& groups) {
  for (const auto& group : groups) {
    bool matched = false;
    for (auto& parameter : parameters) {
      if (fnmatch(group.pattern.c_str(), parameter.name.c_str(), 0) != 0) continue;
      matched = true;
      parameter.learning_rate_scale = group.learning_rate_scale;
      parameter.weight_decay_scale = group.weight_decay_scale;
    }
    if (matched) continue;
    std::vector<std::string> names;
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
    if (parameter.working.scalar_type() != at::kFloat) parameter.working.detach().copy_(parameter.master);
  }
}

}  // namespace tessera
