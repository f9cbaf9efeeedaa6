#include "trainer/loss_scale.h"

#include <torch/torch.h>

namespace tessera {

LossScale::LossScale(const LossScaleOptions& options, at::Device device)
    : options_(options),
      scale_(torch::full({}, options.initial, at::TensorOptions(at::kFloat).device(device))),
      growth_tracker_(torch::zeros({}, at::TensorOptions(at::kInt).device(device))),
      skipped_(torch::zeros({}, at::TensorOptions(at::kInt).device(device))) {}

void LossScale::update(const at::Tensor& norm) {
  const torch::NoGradGuard no_grad;
  const at::Tensor bad = at::isfinite(norm).logical_not();
  skipped_.add_(bad);
  at::_amp_update_scale_(scale_, growth_tracker_, bad.to(at::kFloat), options_.growth, options_.backoff,
                         options_.interval);
}

int64_t LossScale::num_skipped() const { return skipped_.item<int>(); }

std::vector<TensorPiece> LossScale::state() const {
  return {whole_piece("scale", scale_), whole_piece("growth_tracker", growth_tracker_),
          whole_piece("skipped", skipped_)};
}

}  // namespace tessera
