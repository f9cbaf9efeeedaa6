#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "parallel/communicator.h"
#include "trainer/parameters.h"

namespace tessera {

/// The sum of squares of all defined gradients (float32, bfloat16, float16; contiguous): 0-dim float32 on
/// their device. One pass; the same for any number of threads. Sharded gradients: add up the ranks' sums,
/// then take the root.
at::Tensor sum_of_squares(const std::vector<at::Tensor>& gradients);

/// The Euclidean norm over all gradients taken as one vector: 0-dim float32 on their device.
at::Tensor global_norm(const std::vector<at::Tensor>& gradients);

/// The same where a model's parts lie on several ranks: `parts` is Mesh::parts(), or any ranks that together
/// count each parameter once.
at::Tensor global_norm(const std::vector<at::Tensor>& gradients, const std::vector<Parameter>& parameters,
                       const Communicator& parts);

/// Parameters that the tensor axis does not split have on each of its ranks the gradient of that rank's rows
/// and classes: adds them up, as one message.
void sum_whole_gradients(const std::vector<at::Tensor>& gradients, const std::vector<Parameter>& parameters,
                         const Communicator& tensor);

/// Parameters that both ends of a pipeline use have on each the gradient of that use: adds them up.
void sum_tied_gradients(const std::vector<at::Tensor>& gradients, const std::vector<Parameter>& parameters,
                        const Communicator& ends);

/// What the optimizer multiplies gradients by, without a pass of its own and without waiting for the device.
struct GradientScale {
  at::Tensor norm;    ///< 0-dim float32: of the gradients times `multiplier`, before clipping
  at::Tensor factor;  ///< 0-dim float32: multiplier x clip coefficient; NaN when the norm is not finite: skip
                      ///< the step
};

/// `norm`: of the gradients as they are. `multiplier`: 0-dim float32, 1 / (loss scale x count of tokens) or
/// the like; undefined = 1. `clip`: the largest norm allowed, 0 = any; the coefficient is clip / (norm +
/// 1e-6), at most 1, as torch.nn.utils.clip_grad_norm_.
GradientScale scale_and_clip(const at::Tensor& norm, const at::Tensor& multiplier, double clip);

}  // namespace tessera
