#include "trainer/kernels/kernels.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

namespace tessera {
namespace {

const Kernels*& cuda_kernels() {
  static const Kernels* kernels = nullptr;
  return kernels;
}

// oneDNN's product is reachable through this operator only, for dense operands too; torch::compile uses it
// likewise.
at::Tensor onednn_linear(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias) {
  using Linear =
      at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                 c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
  static const auto linear =
      c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<Linear>();
  static const c10::List<std::optional<at::Scalar>> none;
  return linear.call(a, b, bias.defined() ? std::optional(bias) : std::nullopt, "none", none, "");
}

}  // namespace

void register_cuda_kernels(const Kernels& kernels) { cuda_kernels() = &kernels; }

const Kernels& kernels_for(const at::Tensor& data) {
  const bool plain = data.scalar_type() != at::kDouble;
  if (data.is_cuda() && plain && cuda_kernels()) return *cuda_kernels();
  if (data.is_cpu() && plain) return cpu_kernels();
  return generic_kernels();
}

at::Tensor multiply_transposed(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias) {
  if (a.is_cpu() && a.scalar_type() == at::kFloat && a.numel() > 0 && at::hasMKLDNN()) {
    return onednn_linear(a, b, bias);
  }
  return bias.defined() ? at::addmm(bias, a, b.t()) : at::mm(a, b.t());
}

}  // namespace tessera
