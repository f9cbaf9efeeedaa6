// Batches on their way to a device that only writes down what it is told: copies on a stream of their own,
// which the computing one waits for.
#include "trainer/batch_mover.h"

#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <gtest/gtest.h>
#include <torch/library.h>
#include <torch/torch.h>

namespace tessera {
namespace {

std::vector<std::string> device_log;
c10::StreamId current_stream = 0;
constexpr c10::StreamId side_stream = 7;
const at::Device fake_device(at::kPrivateUse1, 0);

c10::Stream stream_of(c10::StreamId id) { return c10::Stream(c10::Stream::UNSAFE, fake_device, id); }
void tell(const std::string& what, c10::StreamId stream) {
  device_log.push_back(what + std::to_string(stream));
}

struct FakeGuard final : c10::impl::DeviceGuardImplInterface {
  at::DeviceType type() const override { return at::kPrivateUse1; }
  at::Device exchangeDevice(at::Device) const override { return fake_device; }
  at::Device getDevice() const override { return fake_device; }
  void setDevice(at::Device) const override {}
  void uncheckedSetDevice(at::Device) const noexcept override {}
  c10::Stream getStream(at::Device) const override { return stream_of(current_stream); }
  c10::Stream getStreamFromGlobalPool(at::Device, bool) const override { return stream_of(side_stream); }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    return stream_of(std::exchange(current_stream, stream.id()));
  }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void** event, const c10::Stream& stream, c10::DeviceIndex, c10::EventFlag) const override {
    tell("record on ", stream.id());
    *event = &current_stream;
  }
  void block(void*, const c10::Stream& stream) const override { tell("wait on ", stream.id()); }
  void destroyEvent(void*, c10::DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, FakeGuard)

// Its tensors have memory of the host under another name.
at::Tensor fake_empty(at::IntArrayRef sizes, std::optional<at::ScalarType> type) {
  const at::Tensor memory = at::empty(sizes, type.value_or(at::kFloat));
  auto* const keep = new at::Tensor(memory);
  return at::from_blob(
      memory.data_ptr(), sizes, [keep](void*) { delete keep; }, memory.options().device(fake_device),
      fake_device);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format",
               [](at::IntArrayRef sizes, std::optional<at::ScalarType> type, std::optional<at::Layout>,
                  std::optional<at::Device>, std::optional<bool>,
                  std::optional<at::MemoryFormat>) { return fake_empty(sizes, type); });
  library.impl("empty_strided", [](at::IntArrayRef sizes, at::IntArrayRef, std::optional<at::ScalarType> type,
                                   std::optional<at::Layout>, std::optional<at::Device>,
                                   std::optional<bool>) { return fake_empty(sizes, type); });
  library.impl("_copy_from", [](const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
    EXPECT_TRUE(non_blocking);
    tell("copy on ", current_stream);
    std::memcpy(to.data_ptr(), from.data_ptr(), from.nbytes());
    return to;
  });
  library.impl("record_stream", [](at::Tensor&, c10::Stream stream) { tell("used on ", stream.id()); });
}

Batch small_batch() {
  Batch batch;
  batch.tokens = torch::arange(6).view({2, 3});
  batch.samples = torch::tensor({int64_t{4}, int64_t{5}});
  return batch;
}

TEST(BatchMover, CopiesOnAStreamThatTheComputingOneWaitsFor) {
  device_log.clear();
  const BatchMover mover(fake_device);
  BatchMover::Sent sent = mover.send({small_batch(), small_batch()});
  EXPECT_EQ(current_stream, 0);
  const std::string copy = "copy on 7";
  EXPECT_EQ(device_log, (std::vector<std::string>{copy, copy, copy, copy, "record on 7"}));
  device_log.clear();
  const std::vector<Batch> batches = mover.receive(std::move(sent));
  const std::string used = "used on 0";
  EXPECT_EQ(device_log, (std::vector<std::string>{"wait on 0", used, used, used, used}));
  ASSERT_EQ(batches.size(), 2);
  EXPECT_EQ(batches[1].tokens.device(), fake_device);
  EXPECT_EQ(static_cast<const int64_t*>(batches[1].tokens.data_ptr())[5], 5);
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
