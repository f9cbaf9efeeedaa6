#include "parallel/plugin.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

namespace tessera {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

/// A machine with a GPU, and an empty folder where the plug-in would be.
GpuMachine machine_with_gpu() {
  const fs::path folder =
      fs::path(testing::TempDir()) / testing::UnitTest::GetInstance()->current_test_info()->name();
  fs::remove_all(folder);
  fs::create_directories(folder);
  return {true, {}, "580.65.06", {folder}};
}

void expect_fault(const GpuMachine& machine, const std::string& why, const std::string& remedy) {
  const GpuSearch found = search_gpu(machine);
  EXPECT_EQ(found.plugin, nullptr);
  EXPECT_TRUE(found.a_fault);
  EXPECT_THAT(found.why_not, HasSubstr(why));
  EXPECT_THAT(found.why_not, HasSubstr(remedy));
}

TEST(SearchGpu, none_there_is_no_fault) {
  GpuMachine machine = machine_with_gpu();
  machine.shows_gpu = false;
  const GpuSearch found = search_gpu(machine);
  EXPECT_EQ(found.plugin, nullptr);
  EXPECT_FALSE(found.a_fault);
  EXPECT_THAT(found.why_not, HasSubstr("shows no NVIDIA GPU"));
}

TEST(SearchGpu, what_the_user_hides_is_no_fault) {
  for (const char* visible : {"", "-1", "-1,0"}) {
    GpuMachine machine = machine_with_gpu();
    machine.visible_devices = visible;
    const GpuSearch found = search_gpu(machine);
    EXPECT_EQ(found.plugin, nullptr);
    EXPECT_FALSE(found.a_fault) << visible;
    EXPECT_THAT(found.why_not, HasSubstr("CUDA_VISIBLE_DEVICES"));
  }
}

TEST(SearchGpu, a_plugin_that_was_not_built) {
  const GpuMachine machine = machine_with_gpu();
  expect_fault(machine,
               "built without GPU support: no libtessera_cuda.so in " + machine.folders.front().string(),
               "launch/setup --cuda");
}

TEST(SearchGpu, a_plugin_that_cannot_be_loaded) {
  const GpuMachine machine = machine_with_gpu();
  std::ofstream(machine.folders.front() / "libtessera_cuda.so") << "no library";
  expect_fault(machine, "libtessera_cuda.so cannot be loaded: ", "launch/build");
}

TEST(SearchGpu, a_driver_that_shows_no_device) {
  GpuMachine machine = machine_with_gpu();
  machine.driver = "535.104.05";
  EXPECT_THAT(why_no_device(machine), HasSubstr("driver 535.104.05 is too old for CUDA 13; install 580"));
  for (const char* driver : {"580.65.06", ""}) {
    machine.driver = driver;
    EXPECT_THAT(why_no_device(machine), HasSubstr("nvidia-smi"));
  }
  machine.visible_devices = "7";
  EXPECT_THAT(why_no_device(machine), HasSubstr("CUDA_VISIBLE_DEVICES='7' names none"));
}

}  // namespace
}  // namespace tessera
