#pragma once
#include <ATen/core/Tensor.h>

namespace tessera {

/// A device that stands in for a GPU on machines without one: LibTorch's PrivateUse1, whose memory is the
/// host's. An operator that is given a tensor of the host beside its own throws, as on a GPU (a single number
/// may come from anywhere), and its data pointers lead nowhere, so that host code which reads one crashes.
/// The work is done by the CPU's kernels.
inline const at::Device other_device{at::kPrivateUse1, 0};

}  // namespace tessera
