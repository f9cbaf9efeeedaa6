#include "trainer/batch.h"

#include <ATen/ATen.h>

namespace tessera {

Batch Batch::to(const at::Device& device) const {
  Batch moved = *this;
  for (at::Tensor* tensor :
       {&moved.tokens, &moved.segments, &moved.attention_mask, &moved.label_positions, &moved.labels,
        &moved.targets, &moved.next_sentence, &moved.samples, &moved.positions, &moved.packing.rows,
        &moved.packing.places, &moved.packing.padding, &moved.packing.starts}) {
    if (tensor->defined()) *tensor = tensor->to(device, /*non_blocking=*/true);
  }
  return moved;
}

}  // namespace tessera
