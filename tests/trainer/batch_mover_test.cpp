// Batches on their way to a device: copies on a stream of their own, which the computing one waits for.
#include "trainer/batch_mover.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/trainer/other_device.h"

namespace tessera {
namespace {

Batch small_batch() {
  Batch batch;
  batch.tokens = torch::arange(6).view({2, 3});
  batch.samples = torch::tensor({int64_t{4}, int64_t{5}});
  return batch;
}

TEST(BatchMover, CopiesOnAStreamThatTheComputingOneWaitsFor) {
  auto& told = other_device_log();
  told.clear();
  const BatchMover mover(other_device);
  BatchMover::Sent sent = mover.send({small_batch(), small_batch()});
  const std::string copy = "copy on 7";
  EXPECT_EQ(told, (std::vector<std::string>{copy, copy, copy, copy, "record on 7"}));
  told.clear();
  const std::vector<Batch> batches = mover.receive(std::move(sent));
  const std::string used = "used on 0";
  EXPECT_EQ(told, (std::vector<std::string>{"wait on 0", used, used, used, used}));
  ASSERT_EQ(batches.size(), 2);
  EXPECT_EQ(batches[1].tokens.device(), other_device);
  EXPECT_TRUE(torch::equal(batches[1].tokens.cpu(), small_batch().tokens));
  EXPECT_FALSE(batches[1].labels.defined());
}

TEST(BatchMover, LeavesBatchesOfTheCpuWhereTheyAre) {
  const BatchMover mover(at::kCPU);
  const Batch batch = small_batch();
  BatchMover::Sent sent = mover.send({batch});
  EXPECT_FALSE(sent.arrived);
  EXPECT_EQ(mover.receive(std::move(sent)).front().tokens.data_ptr(), batch.tokens.data_ptr());
}

}  // namespace
}  // namespace tessera
