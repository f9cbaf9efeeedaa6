#include <torch/torch.h>

#include "parallel/context_methods.h"
#include "parallel/record.h"

namespace tessera {
namespace {

// x [ranks, ...] -> the same shape: block i goes to rank i. Its own transpose, so its own backward.
at::Tensor exchange(const at::Tensor& x, const Communicator& group) {
  at::Tensor y;
  {
    at::NoGradGuard no_grad;
    y = at::empty_like(x, at::MemoryFormat::Contiguous);
    group.all_to_all(y, x.contiguous());
  }
  if (!must_record({x})) return y;
  record({x}, {&y},
         [group, sizes = x.sizes().vec(), options = y.options()](const BackwardNode::Gradients& gradients,
                                                                 BackwardNode&) {
           const at::Tensor& gradient = gradients[0];
           return BackwardNode::Gradients{
               exchange(gradient.defined() ? gradient : at::zeros(sizes, options), group)};
         });
  return y;
}

// [batch, heads, local sequence, head_size] -> [ranks, local sequence, batch, heads / ranks, head_size]
at::Tensor by_heads(const at::Tensor& x, int64_t ranks) {
  return x.unflatten(1, {ranks, x.size(1) / ranks}).permute({1, 3, 0, 2, 4});
}

}  // namespace

at::Tensor ulysses_attention(const AttentionInput& input, const Communicator& group,
                             const ContextAttentionOptions& options) {
  const int64_t ranks = group.size();
  const at::Tensor packed =
      at::stack({by_heads(input.query, ranks), by_heads(input.key, ranks), by_heads(input.value, ranks)}, 2);
  // [whole sequence, 3, batch, heads / ranks, head_size]: chunks arrive in order of rank, hence of position.
  const auto parts = exchange(packed, group).flatten(0, 1).unbind(1);
  const at::Tensor output = whole_attention(
      {parts[0].permute({1, 2, 0, 3}), parts[1].permute({1, 2, 0, 3}), parts[2].permute({1, 2, 0, 3})},
      options);
  // [ranks, heads / ranks, batch, local sequence, head_size]: what arrives needs no rearranging.
  const at::Tensor chunks = output.unflatten(2, {ranks, output.size(2) / ranks}).permute({2, 1, 0, 3, 4});
  return exchange(chunks, group).flatten(0, 1).transpose(0, 1);
}

}  // namespace tessera
