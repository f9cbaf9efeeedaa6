#pragma once
#include <torch/torch.h>

#include <functional>
#include <set>

#include "parallel/shard.h"

namespace tessera {

/// A small net of units: an embedding that is also the output matrix, blocks with 8, 5, 2 and 1 rows (so that
/// ranks keep different numbers of rows, or none), a scalar, a parameter that some ranks use, one that
/// nobody does, and frozen ones.
struct ShardNet {
  static constexpr int64_t width = 8, words = 37;
  static constexpr size_t num_blocks = 4;
  std::vector<UnitParameter> parameters;
  std::function<void(size_t block)> watch;  ///< called within a block, forward and backward

  explicit ShardNet(const std::set<std::string>& frozen) {
    torch::manual_seed(1);
    add("words", {words, width}, 0, frozen);
    add("scale", {}, 0, frozen);
    for (size_t unit = 1; unit <= num_blocks; ++unit) {
      const std::string block = "block" + std::to_string(unit) + ".";
      for (const char* name : {"in", "late", "sometimes"}) add(block + name, {width, width}, unit, frozen);
      add(block + "narrow", {5, width}, unit, frozen);
      add(block + "wide", {width, 5}, unit, frozen);
      add(block + "pair", {2, width}, unit, frozen);
      add(block + "one", {1}, unit, frozen);
      add(block + "never", {3, 2, 2}, unit, frozen);
    }
  }

  const at::Tensor& tensor(const std::string& name) const {
    for (const auto& parameter : parameters) {
      if (parameter.name == name) return parameter.tensor;
    }
    throw std::logic_error(name);
  }

  /// The sum of the squared outputs. `uses`: whether this rank uses the parameters that some do.
  at::Tensor loss(const at::Tensor& tokens, bool uses, Strategy* strategy) const {
    if (strategy) strategy->enter(0, {});
    at::Tensor hidden = torch::embedding(tensor("words"), tokens);
    for (size_t unit = 1; unit <= num_blocks; ++unit) {
      if (strategy) hidden = strategy->enter(unit, hidden);
      hidden = block(unit, hidden, uses);
      if (strategy) hidden = strategy->leave(unit, hidden);
    }
    return (hidden.matmul(tensor("words").t()) * tensor("scale")).pow(2).sum(at::kFloat);
  }

 private:
  void add(const std::string& name, const std::vector<int64_t>& shape, size_t unit,
           const std::set<std::string>& frozen) {
    at::Tensor values = torch::randn(shape, at::kDouble) * 0.25;
    const bool is_frozen = frozen.count(name) > 0 || frozen.count(name.substr(0, name.find('.'))) > 0;
    parameters.push_back({name, values.requires_grad_(!is_frozen), unit});
  }

  at::Tensor block(size_t unit, const at::Tensor& hidden, bool uses) const {
    const auto mine = [&](const char* name) { return tensor("block" + std::to_string(unit) + "." + name); };
    if (watch) watch(unit);
    at::Tensor inner = torch::tanh(hidden.matmul(mine("in")));
    inner = inner.matmul(mine("narrow").t()).matmul(mine("wide").t()) + mine("pair").sum(0) * mine("one");
    if (uses) inner = inner + 0.1 * hidden.matmul(mine("sometimes"));
    if (watch && inner.requires_grad()) {
      inner.register_hook([this, unit](const at::Tensor& gradient) {
        watch(unit);
        return gradient;
      });
    }
    return hidden + inner.matmul(mine("late"));
  }
};

}  // namespace tessera
