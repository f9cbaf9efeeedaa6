#include "trainer/blocks/packed_attention.h"

#include <torch/torch.h>

#include "parallel/record.h"

namespace tessera::ops {
namespace {

struct PackedMemory {
  at::Tensor joined;   ///< [tokens, 3, heads, head_size]
  at::Tensor output;   ///< [batch * sequence, heads * head_size]
  at::Tensor log_sum;  ///< as the kernel left it
};

at::Tensor packed_backward(const PackedMemory& memory, const Packing& packing, bool causal,
                           const at::Tensor& gradient) {
  const auto parts = memory.joined.unbind(1);
  const at::Tensor outer = pack_rows(gradient, packing).view(parts[0].sizes());
  const at::Tensor output = pack_rows(memory.output, packing).view(parts[0].sizes());
  const at::Tensor unused =
      at::empty({2}, outer.options().dtype(at::kUInt64));  // the state of a dropout of 0
  const auto gradients = at::_flash_attention_backward(
      outer, parts[0], parts[1], parts[2], output, memory.log_sum, packing.starts, packing.starts,
      packing.longest, packing.longest, 0.0, causal, unused, unused);
  const at::Tensor joined =
      at::stack({std::get<0>(gradients), std::get<1>(gradients), std::get<2>(gradients)}, 1);
  return unpack_rows(joined.flatten(1), packing);
}

}  // namespace

at::Tensor pack_rows(const at::Tensor& x, const Packing& packing) { return x.index_select(0, packing.rows); }

// A gather too, which is fast and the same each time.
at::Tensor unpack_rows(const at::Tensor& x, const Packing& packing) {
  return x.index_select(0, packing.places).masked_fill_(packing.padding, 0);
}

at::Tensor packed_attention(const at::Tensor& joined, const Packing& packing, int64_t head_size,
                            bool causal) {
  PackedMemory memory;
  at::Tensor output;
  {
    const at::NoGradGuard no_grad;
    memory.joined = pack_rows(joined, packing).view({packing.rows.size(0), 3, -1, head_size});
    const auto parts = memory.joined.unbind(1);
    const auto result =
        at::_flash_attention_forward(parts[0], parts[1], parts[2], packing.starts, packing.starts,
                                     packing.longest, packing.longest, 0.0, causal,
                                     /*return_debug_mask=*/false);
    memory.log_sum = std::get<1>(result);
    output = unpack_rows(std::get<0>(result).flatten(1), packing);
  }
  if (!must_record({joined})) return output;
  memory.output = output.detach();
  record({joined}, {&output},
         [memory, packing, causal](const BackwardNode::Gradients& gradients,
                                   BackwardNode&) -> BackwardNode::Gradients {
           if (!gradients[0].defined()) return {at::Tensor()};
           return {packed_backward(memory, packing, causal, gradients[0])};
         });
  return output;
}

}  // namespace tessera::ops
