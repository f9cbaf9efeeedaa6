#include "parallel/tensor_split.h"

#include <torch/torch.h>

#include "parallel/embedding_rows.h"
#include "parallel/record.h"

namespace tessera {
namespace {

using SplitGradients = BackwardNode::Gradients;

/// [a * b * rows, hidden] -> [b * a * rows, hidden]: from samples by rank to ranks by sample, or back.
at::Tensor swap_outer(const at::Tensor& x, int64_t a, int64_t b) {
  if (a == 1 || b == 1) return x;
  return x.view({a, b, x.size(0) / (a * b), x.size(1)}).transpose(0, 1).reshape(x.sizes());
}

}  // namespace

TensorSplit::Pending TensorSplit::start_gather(const at::Tensor& own, int64_t batch) const {
  Pending pending{at::empty({own.size(0) * size(), own.size(1)}, own.options()), {}, batch, own};
  pending.work = ranks_.all_gather_async(pending.message, own);
  return pending;
}

at::Tensor TensorSplit::finish_gather(const Pending& pending) const {
  pending.work.wait();
  return swap_outer(pending.message, size(), pending.batch);
}

TensorSplit::Pending TensorSplit::start_sum(const at::Tensor& addend, int64_t batch) const {
  Pending pending{at::empty({addend.size(0) / size(), addend.size(1)}, addend.options()),
                  {},
                  batch,
                  swap_outer(addend, batch, size())};
  pending.work = ranks_.reduce_scatter_async(pending.message, pending.kept);
  return pending;
}

at::Tensor TensorSplit::finish_sum(const Pending& pending) const {
  pending.work.wait();
  return pending.message;
}

at::Tensor TensorSplit::gather(const at::Tensor& own, int64_t batch) const {
  at::Tensor all;
  {
    const at::NoGradGuard no_grad;
    all = finish_gather(start_gather(own.contiguous(), batch));
  }
  if (!must_record({own})) return all;
  record({own}, {&all}, [*this, batch](const SplitGradients& gradients, BackwardNode&) -> SplitGradients {
    return {finish_sum(start_sum(gradients[0].contiguous(), batch))};
  });
  return all;
}

at::Tensor TensorSplit::sum(const at::Tensor& addend, int64_t batch) const {
  at::Tensor own;
  {
    const at::NoGradGuard no_grad;
    own = finish_sum(start_sum(addend.contiguous(), batch));
  }
  if (!must_record({addend})) return own;
  record({addend}, {&own}, [*this, batch](const SplitGradients& gradients, BackwardNode&) -> SplitGradients {
    return {finish_gather(start_gather(gradients[0].contiguous(), batch))};
  });
  return own;
}

at::Tensor TensorSplit::pick(const at::Tensor& own, const at::Tensor& positions, int64_t batch) const {
  const int64_t here = own.size(0) / batch, sequence = here * size();
  const at::Tensor column = positions.remainder(sequence);
  const at::Tensor elsewhere = column.floor_divide(here).ne(rank()).unsqueeze(1);
  const at::Tensor row = positions.floor_divide(sequence) * here + column.remainder(here);
  at::Tensor rows;
  {
    const at::NoGradGuard no_grad;
    rows = own.index_select(0, row).masked_fill_(elsewhere, 0);
    ranks_.all_reduce(rows);  // zeros but on one rank: exact
  }
  if (!must_record({own})) return rows;
  record(
      {own}, {&rows},
      [*this, row, elsewhere, shape = own.sizes().vec()](const SplitGradients& gradients,
                                                         BackwardNode&) -> SplitGradients {
        const at::Tensor gradient = gradients[0].clone(at::MemoryFormat::Contiguous);
        ranks_.all_reduce(gradient);
        return {at::zeros(shape, gradient.options()).index_add_(0, row, gradient.masked_fill_(elsewhere, 0))};
      });
  return rows;
}

at::Tensor TensorSplit::once(const at::Tensor& x) const {
  if (rank() == 0 || !must_record({x})) return x;
  at::Tensor same = x.detach();
  record({x}, {&same}, [](const SplitGradients& gradients, BackwardNode&) -> SplitGradients {
    return {at::zeros_like(gradients[0])};
  });
  return same;
}

at::Tensor TensorSplit::lookup(const at::Tensor& table, int64_t first, const at::Tensor& indices) const {
  const at::Tensor here = indices.reshape({-1}) - first;
  const at::Tensor elsewhere = here.lt(0).logical_or(here.ge(table.size(0)));
  const at::Tensor rows = embedding_rows(table, here.masked_fill(elsewhere, 0));
  return sum(rows.masked_fill(elsewhere.unsqueeze(1), 0), indices.size(0));
}

}  // namespace tessera
