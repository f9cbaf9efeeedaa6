#pragma once
#include <torch/csrc/autograd/function.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace tessera {

/// One operation of ours in torch's graph: a function from the gradients of its outputs to those of its
/// inputs. It keeps what it captured until the graph is freed; outputs must be captured detached, or they
/// would keep themselves.
class BackwardNode : public torch::autograd::Node {
 public:
  using Gradients = std::vector<at::Tensor>;
  /// Undefined gradients in: zero. Out: undefined where !node.wanted(i).
  using Run = std::function<Gradients(const Gradients& gradients, BackwardNode& node)>;

  explicit BackwardNode(Run run) : run_(std::move(run)) {}
  bool wanted(size_t input) const { return task_should_compute_output(input); }
  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override;
  void release_variables() override { run_ = nullptr; }
  std::string name() const override { return "tessera::BackwardNode"; }

 private:
  Run run_;
};

/// Whether an operation on these inputs must be recorded. Undefined inputs are allowed.
bool must_record(const std::vector<at::Tensor>& inputs);

/// Makes `outputs`, fresh tensors computed without gradient, the outputs of a node with these inputs.
void record(const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor*>& outputs,
            BackwardNode::Run run);

}  // namespace tessera
