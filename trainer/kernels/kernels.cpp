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

// ATen's products write into rows that are apart, and read them, without a copy on the CPU as on a GPU.
at::Tensor multiply_transposed_padded(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias,
                                      int64_t row_multiple) {
  const int64_t columns = b.size(0);
  if (row_multiple == 0) row_multiple = a.is_cpu() ? 1 : 64;
  const int64_t stride = (columns + row_multiple - 1) / row_multiple * row_multiple;
  if (stride == columns) return multiply_transposed(a, b, bias);
  at::Tensor product = at::empty({a.size(0), stride}, a.options()).narrow(1, 0, columns);
  return bias.defined() ? at::addmm_out(product, bias, a, b.t()) : at::mm_out(product, a, b.t());
}

}  // namespace tessera
