#include "trainer/batch_mover.h"

#include <ATen/ATen.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace tessera {

BatchMover::BatchMover(at::Device device) : device_(device) {
  if (device.is_cpu()) return;
  stream_ = c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device);
}

BatchMover::Sent BatchMover::send(const std::vector<Batch>& batches) const {
  if (!stream_) return {batches, {}};
  Sent sent;
  const c10::StreamGuard guard(*stream_);
  for (const Batch& batch : batches) sent.batches.push_back(batch.to(device_));
  sent.arrived.emplace(device_.type());
  sent.arrived->record(*stream_);
  return sent;
}

std::vector<Batch> BatchMover::receive(Sent sent) const {
  if (!sent.arrived) return std::move(sent.batches);
  const c10::Stream current = c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
  sent.arrived->block(current);
  // Their memory is of the other stream: it must not go to the next copies before this one has read it.
  for (Batch& batch : sent.batches) {
    for (at::Tensor* tensor : batch.tensors()) {
      if (tensor->defined()) tensor->record_stream(current);
    }
  }
  return std::move(sent.batches);
}

}  // namespace tessera
