#pragma once
// Where the tools compute that tests drive.
#include <ATen/Context.h>

#include <cstdlib>
#include <string>

#include "recipes/error.h"
#include "trainer/device.h"

namespace tessera {

/// The device that TESSERA_TEST_DEVICE names: cpu, which it is without, or cuda. A tool's first statement:
/// whatever asks LibTorch for its generators before the plug-in is loaded hides CUDA from the whole process.
/// Errors: Error for another name and where there is no GPU.
inline at::Device test_device() {
  const char* variable = std::getenv("TESSERA_TEST_DEVICE");
  const std::string name = variable ? variable : "cpu";
  if (name != "cpu" && name != "cuda") {
    throw Error("TESSERA_TEST_DEVICE: unknown device '" + name + "'" + valid_names(name, {"cpu", "cuda"}));
  }
  const at::Device device = choose_device(read_device(name, "TESSERA_TEST_DEVICE"), /*local_rank=*/0);
  // As it is by default: float32 products are compared with others in float32.
  if (device.is_cuda()) at::globalContext().setAllowTF32CuBLAS(false);
  return device;
}

}  // namespace tessera
