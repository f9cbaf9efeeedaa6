#include "tests/trainer/other_device.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <functional>

namespace tessera {
namespace {

using torch::jit::Stack;
using Convert = std::function<at::Tensor(const at::Tensor&)>;

c10::StreamId current_stream = 0;
constexpr c10::StreamId pool_stream = 7;
c10::Stream stream_of(c10::StreamId id) { return c10::Stream(c10::Stream::UNSAFE, other_device, id); }
void tell(const std::string& what, c10::StreamId stream) {
  other_device_log().push_back(what + " on " + std::to_string(stream));
}

/// One device; its streams are in order whatever they are told, which is only written down.
struct OtherGuard final : c10::impl::DeviceGuardImplInterface {
  at::DeviceType type() const override { return at::kPrivateUse1; }
  at::Device exchangeDevice(at::Device) const override { return other_device; }
  at::Device getDevice() const override { return other_device; }
  void setDevice(at::Device) const override {}
  void uncheckedSetDevice(at::Device) const noexcept override {}
  c10::Stream getStream(at::Device) const override { return stream_of(current_stream); }
  c10::Stream getStreamFromGlobalPool(at::Device, bool) const override { return stream_of(pool_stream); }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    return stream_of(std::exchange(current_stream, stream.id()));
  }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void** event, const c10::Stream& stream, c10::DeviceIndex, c10::EventFlag) const override {
    tell("record", stream.id());
    *event = &current_stream;
  }
  void block(void*, const c10::Stream& stream) const override { tell("wait", stream.id()); }
  void destroyEvent(void*, c10::DeviceIndex) const noexcept override {}
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, OtherGuard);

bool is_other(const at::Tensor& tensor) { return tensor.device().type() == at::kPrivateUse1; }

// No address of a process has this bit: who follows it crashes.
void* turn(void* address) {
  constexpr uintptr_t nowhere = uintptr_t{1} << 62;
  return address == nullptr ? nullptr
                            : reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(address) ^ nowhere);
}

/// The same memory as a tensor of the other side.
at::Tensor across(const at::Tensor& tensor) {
  const at::Device device = is_other(tensor) ? at::Device(at::kCPU) : other_device;
  const c10::Storage& storage = tensor.storage();
  void* data = turn(storage.mutable_data());
  c10::DataPtr pointer(
      data, new c10::Storage(storage), [](void* kept) { delete static_cast<c10::Storage*>(kept); }, device);
  c10::Storage other(c10::Storage::use_byte_size_t(), storage.nbytes(), std::move(pointer),
                     c10::GetCPUAllocator(),
                     /*resizable=*/true);
  const auto key = device.is_cpu() ? c10::DispatchKey::CPU : c10::DispatchKey::PrivateUse1;
  at::Tensor result =
      at::detail::make_tensor<c10::TensorImpl>(std::move(other), c10::DispatchKeySet(key), tensor.dtype());
  result.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(),
                                                      tensor.storage_offset());
  return result;
}

/// An argument or result with its tensors converted, in whatever list they are.
c10::IValue converted(const c10::IValue& value, const Convert& convert) {
  if (value.isTensor()) return convert(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(convert(tensor));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const std::optional<at::Tensor> tensor : value.toOptionalTensorList())
      list.push_back(tensor ? std::optional(convert(*tensor)) : std::nullopt);
    return list;
  }
  return value;
}

struct Passed {
  at::Tensor theirs, ours;
};

/// An operator on the CPU: arguments across, results back; what it changed in place is the argument itself.
void run_on_host(const c10::OperatorHandle& op, Stack* stack) {
  std::vector<Passed> passed;
  const Convert there = [&](const at::Tensor& tensor) {
    if (!tensor.defined()) return tensor;
    if (!is_other(tensor)) {
      TORCH_CHECK(tensor.dim() == 0, op.schema().name(), ": a tensor ", tensor.sizes(),
                  " of the host meets tensors of the device");
      return tensor;
    }
    return passed.emplace_back(tensor, across(tensor)).ours;
  };
  const Convert back = [&](const at::Tensor& tensor) {
    for (const Passed& each : passed) {
      if (tensor.is_same(each.ours)) return each.theirs;
    }
    return tensor.defined() ? across(tensor) : tensor;
  };
  const size_t first = stack->size() - op.schema().arguments().size();
  for (size_t i = first; i < stack->size(); ++i) {
    c10::IValue& argument = (*stack)[i];
    argument = argument.isDevice() ? c10::IValue(at::Device(at::kCPU)) : converted(argument, there);
  }
  op.callBoxed(stack);
  for (const auto& [theirs, ours] : passed) {  // results that were given their size
    if (turn(ours.storage().mutable_data()) == theirs.storage().mutable_data() &&
        ours.sizes() == theirs.sizes())
      continue;
    theirs.unsafeGetTensorImpl()->set_storage_keep_dtype(across(ours).storage());
    theirs.unsafeGetTensorImpl()->set_sizes_and_strides(ours.sizes(), ours.strides(), ours.storage_offset());
  }
  for (size_t i = first; i < stack->size(); ++i) (*stack)[i] = converted((*stack)[i], back);
}

using MaybeLayout = std::optional<at::Layout>;
using MaybeType = std::optional<at::ScalarType>;
using MaybeDevice = std::optional<at::Device>;

at::Tensor make_empty(at::IntArrayRef size, MaybeType type, MaybeLayout, MaybeDevice, std::optional<bool>,
                      std::optional<at::MemoryFormat>) {
  return across(at::empty(size, type.value_or(at::kFloat)));
}

at::Tensor make_empty_strided(at::IntArrayRef size, at::IntArrayRef stride, MaybeType type, MaybeLayout,
                              MaybeDevice, std::optional<bool>) {
  return across(at::empty_strided(size, stride, type.value_or(at::kFloat)));
}

/// The one way between host and device.
at::Tensor copy_over(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  tell(non_blocking ? "copy" : "waiting copy", current_stream);
  const auto ours = [](const at::Tensor& tensor) { return is_other(tensor) ? across(tensor) : tensor; };
  ours(to).copy_(ours(from));
  return to;
}

void use_on(at::Tensor&, c10::Stream stream) { tell("used", stream.id()); }

bool may_take_place_of(const at::Tensor&, const at::Tensor&) { return true; }

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", make_empty);
  library.impl("empty_strided", make_empty_strided);
  library.impl("_copy_from", copy_over);
  library.impl("record_stream", use_on);
  library.impl("_has_compatible_shallow_copy_type", may_take_place_of);
}

}  // namespace

std::vector<std::string>& other_device_log() {
  static std::vector<std::string> log;
  return log;
}

}  // namespace tessera
