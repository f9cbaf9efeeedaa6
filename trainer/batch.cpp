#include "trainer/batch.h"

#include <ATen/ATen.h>

namespace tessera {
namespace {

at::Tensor page_locked(const at::Tensor& tensor) { return tensor.contiguous().pin_memory(); }

}  // namespace

std::array<at::Tensor*, 13> Batch::tensors() {
  return {&tokens,         &segments,        &attention_mask, &label_positions, &labels,
          &targets,        &next_sentence,   &samples,        &positions,       &packing.rows,
          &packing.places, &packing.padding, &packing.starts};
}

Batch Batch::pinned() const {
  Batch locked = *this;
  for (at::Tensor* tensor : locked.tensors()) {
    if (tensor->defined()) *tensor = page_locked(*tensor);
  }
  return locked;
}

Batch Batch::to(const at::Device& device) const {
  Batch moved = *this;
  for (at::Tensor* tensor : moved.tensors()) {
    if (tensor->defined()) *tensor = to_device(*tensor, device);
  }
  return moved;
}

at::Tensor to_device(const at::Tensor& tensor, const at::Device& device) {
  const bool locks = device.is_cuda() && tensor.is_cpu();
  return (locks ? page_locked(tensor) : tensor).to(device, /*non_blocking=*/true);
}

}  // namespace tessera
