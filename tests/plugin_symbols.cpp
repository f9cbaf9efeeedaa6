// In every tool: what the GPU plug-in takes from the program that loads it, even where the tool does not use
// it itself. Without it the plug-in cannot be loaded (tests/trainer/test_plugin.py).
#include "trainer/kernels/kernels.h"

namespace tessera {
namespace {
[[gnu::used]] const auto taken_by_the_plugin = &register_cuda_kernels;
}
}  // namespace tessera
