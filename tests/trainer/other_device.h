#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace tessera {

/// A device that stands in for a GPU on machines without one: LibTorch's PrivateUse1, whose memory is the
/// host's. An operator that is given a tensor of the host beside its own throws, as on a GPU (a single number
/// may come from anywhere), and its data pointers lead nowhere, so that host code which reads one crashes.
/// The work is done by the CPU's kernels.
inline const at::Device other_device{at::kPrivateUse1, 0};

/// What the device was told about streams since somebody cleared it: "copy on 7" ("waiting copy" where the
/// host waits), "record on 7", "wait on 0", "used on 0". Stream 0 computes, 7 is the pool's.
std::vector<std::string>& other_device_log();

}  // namespace tessera
