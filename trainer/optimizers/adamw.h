#pragma once
#include "trainer/optimizer.h"

namespace tessera {

/// Adam with decoupled weight decay (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019).
struct AdamwOptions {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0.01;
  bool bias_correction = true;  ///< false: as Google's BERT (with epsilon 1e-6)
  std::vector<std::string> no_decay;
  std::vector<ParameterGroup> groups;
};

class Adamw : public Optimizer {
 public:
  Adamw(std::vector<Parameter> parameters, const AdamwOptions& options);

 protected:
  void begin_step(int64_t step) override;
  void update(const Block& block) const override;
  void update_aten(Batch& batch) const override;

 private:
  AdamwOptions options_;
  double correction1_ = 1;       // 1 - beta1^step
  double correction2_root_ = 1;  // sqrt(1 - beta2^step)
};

}  // namespace tessera
