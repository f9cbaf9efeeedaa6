#pragma once
#include "trainer/optimizer.h"

namespace tessera {

/// Stochastic gradient descent with momentum, plain or Nesterov's, in torch.optim.SGD's convention: the decay
/// is added to the gradient, and the momentum buffer does not contain the learning rate.
struct SgdOptions {
  double learning_rate = 0.1;
  double momentum = 0.9;
  bool nesterov = false;
  double weight_decay = 0;
  std::vector<std::string> no_decay;
  std::vector<ParameterGroup> groups;
};

class Sgd : public Optimizer {
 public:
  Sgd(std::vector<Parameter> parameters, const SgdOptions& options);

 protected:
  void update(const Block& block) const override;
  void update_aten(Batch& batch) const override;

 private:
  SgdOptions options_;
};

}  // namespace tessera
