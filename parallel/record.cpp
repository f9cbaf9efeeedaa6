#include "parallel/record.h"

#include <torch/csrc/autograd/functions/utils.h>
#include <torch/torch.h>

namespace tessera {

torch::autograd::variable_list BackwardNode::apply(torch::autograd::variable_list&& gradients) {
  TORCH_CHECK(run_, "backward ran twice over the same graph");
  return run_(gradients, *this);
}

bool must_record(const std::vector<at::Tensor>& inputs) {
  if (!at::GradMode::is_enabled()) return false;
  for (const at::Tensor& input : inputs) {
    if (input.defined() && input.requires_grad()) return true;
  }
  return false;
}

void record(const std::vector<at::Tensor>& inputs, const std::vector<at::Tensor*>& outputs,
            BackwardNode::Run run) {
  const std::shared_ptr<BackwardNode> node(new BackwardNode(std::move(run)), torch::autograd::deleteNode);
  node->set_next_edges(torch::autograd::collect_next_edges(inputs));
  for (at::Tensor* output : outputs) torch::autograd::set_history(*output, node);
}

}  // namespace tessera
