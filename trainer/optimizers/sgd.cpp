#include "trainer/optimizers/sgd.h"

#include <torch/torch.h>

#include "trainer/kernels/cpu/loops.h"

namespace tessera {

Sgd::Sgd(std::vector<Parameter> parameters, const SgdOptions& options)
    : Optimizer(
          std::move(parameters),
          options.momentum != 0 ? std::vector<std::string>{"momentum_buffer"} : std::vector<std::string>{},
          options.learning_rate),
      options_(options) {}

void Sgd::update(const Block& block) const {
  const double decay = options_.weight_decay * block.parameter.weight_decay_scale;
  const loops::SgdConstants constants{.learning_rate = static_cast<float>(block.learning_rate),
                                      .weight_decay = static_cast<float>(decay),
                                      .momentum = static_cast<float>(options_.momentum),
                                      .nesterov = options_.nesterov};
  loops::sgd(block.values.data(), options_.momentum != 0 ? block.slots[0] : nullptr, block.gradient,
             static_cast<int64_t>(block.values.size()), constants);
}

void Sgd::update_aten(Batch& batch) const {
  const auto buffers = batch.slots.empty() ? std::vector<at::Tensor>{} : batch.slots[0];
  at::_fused_sgd_(batch.masters, batch.gradients, buffers, options_.weight_decay * batch.weight_decay_scale,
                  options_.momentum, batch.learning_rate, /*dampening=*/0, options_.nesterov,
                  /*maximize=*/false,
                  /*is_first_step=*/false, batch.inverse_scale, batch.skip);
}

}  // namespace tessera
