#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

/// What Kernels::adamw takes: AdamW over many tensors at once.
namespace tessera {

/// One parameter; its tensors are contiguous and of one size.
struct AdamwTensors {
  at::Tensor gradient;         ///< float32, bfloat16 or float16
  at::Tensor master;           ///< float32
  at::Tensor average, square;  ///< float32: of gradients and of their squares
  at::Tensor working;          ///< float32, bfloat16 or float16: becomes master, rounded; undefined: none
  double learning_rate_scale = 1;
  double weight_decay = 0;
  int64_t age = 0;  ///< which of AdamwStep::first_steps is its own
};

struct AdamwStep {
  double learning_rate, beta1, beta2, epsilon;
  bool bias_correction;
  at::Tensor gradient_scale;  ///< 0-dim float32 that multiplies gradients, undefined = 1; where it is not
                              ///< finite nothing changes, not even the count of steps
  at::Tensor steps;           ///< 0-dim float32: steps taken so far; becomes one more
  at::Tensor first_steps;     ///< [ages] float32: of the steps taken, those before a parameter's first
};

}  // namespace tessera
