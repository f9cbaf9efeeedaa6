#include "tests/cuda/fibres.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <numeric>
#include <vector>

#include "trainer/kernels/cuda/launch.cuh"

namespace tessera::cuda {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

__global__ void write_numbers(std::vector<int>* numbers) {
  const uint32_t block = blockIdx.x + gridDim.x * blockIdx.y;
  (*numbers)[block * 6 + threadIdx.x + blockDim.x * threadIdx.y] +=
      static_cast<int>(100 * block + threadIdx.y);
}

TEST(Fibres, RunEveryThreadOfEveryBlockOnce) {
  std::vector<int> numbers(6 * 6);
  launch(write_numbers, dim3(2, 3), dim3(3, 2), &numbers);
  for (int i = 0; i < 36; ++i) EXPECT_EQ(numbers[static_cast<size_t>(i)], 100 * (i / 6) + i % 6 / 3) << i;
}

// The sum of a block's thread numbers; the right one has the barrier.
template <bool Barrier>
__global__ void sum_in_shared(int* result) {
  __shared__ int values[64];
  values[threadIdx.x] = -1;
  __syncthreads();
  values[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (Barrier) __syncthreads();
  if (threadIdx.x == 0) *result = std::accumulate(values, values + 64, 0);
}

std::array<int, 3> in_all_orders(void (*kernel)(int*)) {
  std::array<int, 3> results{};
  constexpr std::array orders{fibres::Order::ascending, fibres::Order::descending, fibres::Order::shuffled};
  for (size_t i = 0; i < 3; ++i) {
    fibres::set_order(orders[i]);
    launch(kernel, 1, 64, &results[i]);
  }
  fibres::set_order(fibres::Order::ascending);
  return results;
}

TEST(Fibres, ShowMissingBarriersInSomeOrder) {
  constexpr int right = 64 * 63 / 2;
  EXPECT_EQ(in_all_orders(sum_in_shared<true>), (std::array<int, 3>{right, right, right}));
  EXPECT_NE(in_all_orders(sum_in_shared<false>)[0], right);
}

__global__ void half_reach_the_barrier() {
  if (threadIdx.x < 32) __syncthreads();
}
__global__ void two_barriers_for_one() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void lanes_missing_in_shuffle(int* result) {
  if (threadIdx.x < 31) *result = __shfl_xor_sync(0xFFFFFFFFu, 1, 1);
}
__global__ void shuffle_within(uint32_t mask, int* result) {
  if (mask >> threadIdx.x & 1) *result = __shfl_sync(mask, 1, 5);
}

TEST(Fibres, ReportWhatWouldHang) {
  int result = 0;
  EXPECT_THAT([] { launch(half_reach_the_barrier, 1, 64); },
              ThrowsMessage<fibres::KernelError>(HasSubstr("thread 32 ended without reaching this barrier")));
  EXPECT_THAT([] { launch(two_barriers_for_one, 1, 64); },
              ThrowsMessage<fibres::KernelError>(HasSubstr("thread 32 waits at another barrier")));
  EXPECT_THAT([&] { launch(lanes_missing_in_shuffle, 1, 64, &result); },
              ThrowsMessage<fibres::KernelError>(HasSubstr("lane 31 does not take part")));
  EXPECT_THAT([&] { launch(shuffle_within, 1, 32, 0xFFFFFFFFu, &result); },
              testing::Not(testing::Throws<std::exception>()));
  EXPECT_THAT([&] { launch(shuffle_within, 1, 20, 0xFFFFFFFFu, &result); },
              ThrowsMessage<fibres::KernelError>(HasSubstr("lane 20 does not take part")));
  EXPECT_THAT([&] { launch(shuffle_within, 1, 32, 0xFu, &result); },
              ThrowsMessage<fibres::KernelError>(HasSubstr("lane 5 is read, but not in the mask")));
}

struct Lanes {
  std::array<uint32_t, 64> exchanged, down, voted;
};
__global__ void exchange_lanes(Lanes* lanes) {
  const uint32_t thread = threadIdx.x;
  lanes->exchanged[thread] = __shfl_xor_sync(0xFFFFFFFFu, thread, 4);
  lanes->down[thread] = __shfl_down_sync(0xFFFFFFFFu, thread, 3);
  lanes->voted[thread] = __ballot_sync(0xFFFFFFFFu, thread % 3 == 0);
}

TEST(Fibres, ShuffleAndVoteWithinWarps) {
  Lanes lanes{};
  launch(exchange_lanes, 1, 64, &lanes);
  for (uint32_t thread = 0; thread < 64; ++thread) {
    EXPECT_EQ(lanes.exchanged[thread], thread ^ 4);
    EXPECT_EQ(lanes.down[thread], thread % 32 < 29 ? thread + 3 : thread);
    EXPECT_EQ(lanes.voted[thread] >> thread % 32 & 1, thread % 3 == 0) << thread;
  }
}

__global__ void load_at(const char* address) { load16(address); }
__global__ void touch_shared(size_t at) { static_cast<volatile char*>(dynamic_shared())[at] = 1; }

TEST(Fibres, RefuseWhatAGpuWould) {
  alignas(16) std::array<char, 32> bytes{};
  EXPECT_NO_THROW(launch(load_at, 1, 1, bytes.data()));
  EXPECT_THROW(launch(load_at, 1, 1, bytes.data() + 8), fibres::KernelError);
  EXPECT_THROW(launch(touch_shared, 0, 1, size_t{0}), fibres::KernelError);
  EXPECT_THROW(launch(touch_shared, 1, 1025, size_t{0}), fibres::KernelError);
  EXPECT_THROW(launch_shared(fibres::max_shared_bytes + 1, touch_shared, 1, 1, size_t{0}),
               fibres::KernelError);
  EXPECT_NO_THROW(launch_shared(100, touch_shared, 1, 1, size_t{99}));
#if defined(__SANITIZE_ADDRESS__)
  EXPECT_DEATH(launch_shared(100, touch_shared, 1, 1, size_t{100}), "heap-buffer-overflow");
#endif
}

}  // namespace
}  // namespace tessera::cuda
