#include "trainer/determinism.h"

#include <ATen/Context.h>

#include <cstdlib>

namespace tessera {

void set_determinism(const TrainSection& train, at::Device device) {
  if (!device.is_cuda() || !train.deterministic) return;
  // Workspaces of its own for each stream, without which cuBLAS may take another algorithm each time.
  setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", /*overwrite=*/0);
  at::Context& context = at::globalContext();
  context.setDeterministicAlgorithms(true, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(
      false);  // finds mistakes in tests, and costs every tensor a fill
}

}  // namespace tessera
