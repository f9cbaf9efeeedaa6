// The main of the test programs that may use a GPU.
#include <gtest/gtest.h>

#include "parallel/plugin.h"

int main(int argc, char** argv) {
  // First of all: torch looks for GPUs once, when something asks (manual_seed does), and without the plug-in
  // it finds none for the rest of the process.
  tessera::find_gpu_plugin();
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
