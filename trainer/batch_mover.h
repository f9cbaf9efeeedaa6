#pragma once
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <optional>
#include <vector>

#include "trainer/batch.h"

namespace tessera {

/// Brings batches to the device while it computes: sent a step ahead, on a stream of their own. On the CPU
/// they are there already.
class BatchMover {
 public:
  explicit BatchMover(at::Device device);

  /// Batches on the device whose copies may still be under way.
  struct Sent {
    std::vector<Batch> batches;
    std::optional<c10::Event> arrived;  ///< nothing: they are there
  };
  Sent send(const std::vector<Batch>& batches) const;
  /// From here on the current stream sees them. The host does not wait.
  std::vector<Batch> receive(Sent sent) const;

 private:
  at::Device device_;
  std::optional<c10::Stream> stream_;
};

}  // namespace tessera
