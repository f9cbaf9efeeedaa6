#include <torch/torch.h>

#include "parallel/record.h"
#include "trainer/blocks/functions.h"

namespace tessera::ops {
namespace {

/// Of some rows of x: loss and hits, and where `keep` the gradient of their logits' part on this rank.
struct PartLoss {
  at::Tensor sum, correct, logits_gradient;
};

// softmax over classes of which this rank has [first, first + c): maximum and sum travel, logits never. Their
// gradient overwrites them.
PartLoss part_loss(const VocabularyPart& part, const at::Tensor& logits, const at::Tensor& labels) {
  const at::ScalarType wide = at::promote_types(logits.scalar_type(), at::kFloat);
  at::Tensor values = logits.to(wide);
  const at::Tensor best = std::get<0>(values.max(1));
  part.split->ranks().all_reduce(best, Reduction::max);
  const at::Tensor predicts = labels.ge(0), here = labels - part.first;
  const at::Tensor mine = predicts.logical_and(here.ge(0)).logical_and(here.lt(values.size(1)));
  const at::Tensor column = here.masked_fill(mine.logical_not(), 0).unsqueeze(1);
  const at::Tensor label = values.gather(1, column).squeeze(1);
  const at::Tensor hit = label.ge(best).logical_and(mine);
  values =
      values.is_same(logits) ? values.sub_(best.unsqueeze(1)).exp_() : (values - best.unsqueeze(1)).exp_();
  // Row sums of exponentials, and the label's logit from the rank that has it: one message.
  const at::Tensor both =
      at::stack({values.sum(1), (label - best).masked_fill(mine.logical_not(), 0), hit.to(wide)});
  part.split->ranks().all_reduce(both);
  const at::Tensor losses = (both[0].log() - both[1]).masked_fill(predicts.logical_not(), 0);
  values.div_(both[0].unsqueeze(1));
  values.scatter_add_(1, column, mine.to(wide).neg().unsqueeze(1));
  values.masked_fill_(predicts.logical_not().unsqueeze(1), 0);
  if (!values.is_same(logits)) logits.copy_(values);
  return {losses.sum(), both[2].sum(), logits};
}

}  // namespace

TokenLoss split_cross_entropy(const VocabularyPart& part, const at::Tensor& x, const at::Tensor& weight,
                              const at::Tensor& bias, const at::Tensor& labels) {
  const bool keep = must_record({x, weight, bias});
  PartLoss result;
  {
    const at::NoGradGuard no_grad;
    result = part_loss(part, multiply_transposed_padded(x, weight, bias, part.row_multiple), labels);
  }
  TokenLoss loss{result.sum, result.correct};
  if (!keep) return loss;
  record({x, weight, bias}, {&loss.sum},
         [x = x.detach(), weight = weight.detach(), with_bias = bias.defined(), d = result.logits_gradient](
             const BackwardNode::Gradients& gradients, BackwardNode& node) {
           at::Tensor scaled = at::empty_strided(d.sizes(), d.strides(), d.options());
           at::mul_out(scaled, d, gradients[0].to(d.scalar_type()));
           BackwardNode::Gradients all(3);
           if (node.wanted(0)) all[0] = multiply_transposed(scaled, weight.t());
           if (node.wanted(1)) all[1] = multiply_transposed(scaled.t(), x.t());
           if (with_bias && node.wanted(2)) all[2] = kernels_for(scaled).column_sum(scaled);
           return all;
         });
  return loss;
}

}  // namespace tessera::ops
