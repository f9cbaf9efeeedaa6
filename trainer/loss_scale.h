#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "trainer/tensor_piece.h"

namespace tessera {

struct LossScaleOptions {
  double initial = 65536;
  double growth = 2;     ///< factor after `interval` good steps in a row
  double backoff = 0.5;  ///< factor after a step whose gradients were not finite
  int64_t interval = 2000;
};

/// Dynamic loss scale for float16 (Micikevicius et al., "Mixed precision training", 2018), by
/// torch.amp.GradScaler's rules. All of it stays on the device.
class LossScale {
 public:
  LossScale(const LossScaleOptions& options, at::Device device);

  /// 0-dim float32: multiply the loss by it, and the gradients by its reciprocal (scale_and_clip's
  /// multiplier).
  const at::Tensor& scale() const { return scale_; }
  /// After every step; `norm` of its gradients (0-dim float32): not finite means that the step was skipped.
  void update(const at::Tensor& norm);
  /// Steps skipped so far. Waits for the device.
  int64_t num_skipped() const;

  /// Live tensors: "scale", "growth_tracker", "skipped". Read them to save, write into them to load.
  std::vector<TensorPiece> state() const;

 private:
  LossScaleOptions options_;
  at::Tensor scale_, growth_tracker_, skipped_;
};

}  // namespace tessera
