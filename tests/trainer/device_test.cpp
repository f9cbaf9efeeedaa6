#include "trainer/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "recipes/error.h"

namespace tessera {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

int num_gpus = 0, current_gpu = -1;

/// As many GPUs as `count`.
GpuPlugin gpus(int count) {
  num_gpus = count;
  current_gpu = -1;
  GpuPlugin plugin;
  plugin.device_count = [] { return num_gpus; };
  plugin.set_device = [](int device) { current_gpu = device; };
  return plugin;
}

TEST(Device, names_are_read) {
  EXPECT_EQ(read_device("auto", "--device").choice, DeviceChoice::automatic);
  EXPECT_EQ(read_device("cpu", "--device").choice, DeviceChoice::cpu);
  EXPECT_EQ(read_device("cuda", "--device").choice, DeviceChoice::cuda);
  EXPECT_FALSE(read_device("cuda", "--device").number);
  EXPECT_EQ(read_device("cuda:12", "--device").choice, DeviceChoice::cuda);
  EXPECT_EQ(read_device("cuda:12", "--device").number, 12);
}

TEST(Device, other_names_are_mistakes) {
  for (const char* text : {"banana", "", "cuda:", "cuda:-1", "cuda:1x", "cuda:x", "CUDA", "cpu:0"}) {
    EXPECT_THAT([&] { read_device(text, "--device"); },
                ThrowsMessage<Error>(HasSubstr("--device: unknown device '" + std::string(text) +
                                               "'; valid: auto, cpu, cuda, cuda:N")));
  }
}

TEST(Device, ranks_take_gpus_in_turn) {
  const GpuPlugin plugin = gpus(2);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_EQ(choose_gpu({DeviceChoice::cuda}, rank, plugin),
              at::Device(at::kCUDA, static_cast<int8_t>(rank % 2)));
    EXPECT_EQ(current_gpu, rank % 2);
  }
}

TEST(Device, a_number_names_one_of_those_there_are) {
  EXPECT_EQ(choose_gpu({DeviceChoice::cuda, 3}, 0, gpus(4)), at::Device(at::kCUDA, 3));
  EXPECT_EQ(current_gpu, 3);
  EXPECT_THAT(
      [] {
        choose_gpu({DeviceChoice::cuda, 4}, 0, gpus(4));
      },
      ThrowsMessage<Error>(
          HasSubstr("cuda:4: this machine has 4 GPUs that CUDA sees; valid: cuda:0 to cuda:3")));
  EXPECT_THAT(
      [] {
        choose_gpu({DeviceChoice::cuda, 1}, 0, gpus(1));
      },
      ThrowsMessage<Error>(HasSubstr("cuda:1: this machine has 1 GPU that CUDA sees; valid: cuda:0")));
}

TEST(Device, cpu_is_the_cpu_everywhere) {
  EXPECT_EQ(choose_device({DeviceChoice::cpu}, 3), at::Device(at::kCPU));
  EXPECT_EQ(device_notice({DeviceChoice::cpu}), "");
}

}  // namespace
}  // namespace tessera
