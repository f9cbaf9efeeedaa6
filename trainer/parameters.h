#pragma once
#include <torch/nn/module.h>

#include <string>
#include <vector>

#include "parallel/strategy.h"
#include "recipes/fields.h"
#include "trainer/placement.h"

namespace tessera {

/// A trainable tensor as the optimizer sees it. The model computes with `working` (float32, bfloat16 or
/// float16); the optimizer steps `master`, always float32, and refreshes `working` from it. Both are one
/// tensor where working is float32, unless the master is in the host's memory (parallel.offload).
struct Parameter {
  std::string name;
  at::Tensor working;
  at::Tensor master;
  double learning_rate_scale = 1.0;
  double weight_decay_scale = 1.0;  ///< 0 for norms and biases by default
  Placement placement = {};         ///< of both tensors

  bool has_copy() const { return !working.is_alias_of(master); }
};

/// Changes the scales of every parameter whose name matches `pattern` (shell style: * ? [a-z]; * also matches
/// dots).
struct ParameterGroup {
  std::string pattern;
  double learning_rate_scale = 1.0;
  double weight_decay_scale = 1.0;
};
template <class V>
void fields(ParameterGroup& t, V& v) {
  v("pattern", t.pattern, "names of parameters, shell style: * ? [a-z], where * also matches dots", required);
  v("learning_rate_scale", t.learning_rate_scale, "factor of the learning rate", at_least(0));
  v("weight_decay_scale", t.weight_decay_scale, "factor of the weight decay; 0: none", at_least(0));
}

/// All parameters of a module in its own order, tied ones once, under their first name.
std::vector<NamedParameter> parameters_once(const torch::nn::Module& module);

/// Names with their numbers as "*", alike ones once, for messages: "layers.*.attention.query.weight".
std::vector<std::string> name_patterns(const std::vector<std::string>& names);

/// The trainable parameters (requires_grad) of a module in its own order, tied ones once, under their first
/// name. Where `working` is not float32, the module's own tensors are replaced by copies of that type, and
/// the float32 values become the masters. One-dimensional parameters (norms, biases) get no weight decay.
std::vector<Parameter> collect_parameters(torch::nn::Module& module, at::ScalarType working = at::kFloat);
/// The same for parts of parameters.
std::vector<Parameter> collect_parameters(const std::vector<PlacedTensor>& tensors,
                                          at::ScalarType working = at::kFloat);

/// Applies groups in order: the last that matches a parameter decides, on top of its own factors. Throws
/// Error for a pattern that matches nothing, not even one of `elsewhere`: parameters that other ranks step.
void apply_groups(std::vector<Parameter>& parameters, const std::vector<ParameterGroup>& groups,
                  const std::vector<std::string>& elsewhere = {});

/// Writes every master into its working copy (after loading a checkpoint or swapping averages).
void refresh_working(const std::vector<Parameter>& parameters);

}  // namespace tessera
