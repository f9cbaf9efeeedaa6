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
  std::vector<ParameterGroup> groups;
};
template <class V>
void fields(AdamwOptions& t, V& v) {
  v("learning_rate", t.learning_rate, "step size at the height of the schedule", required, changeable,
    above(0));
  v("beta1", t.beta1, "decay per step of the average of gradients", changeable, at_least(0), below(1));
  v("beta2", t.beta2, "decay per step of the average of squared gradients", changeable, at_least(0),
    below(1));
  v("epsilon", t.epsilon, "added to the root of the squares", changeable, above(0));
  v("weight_decay", t.weight_decay,
    "share of each weight that a step at learning rate 1 would remove; not of norms and biases", changeable,
    at_least(0));
  v("bias_correction", t.bias_correction,
    "divide the averages by what they lack at the start (PyTorch); false: do not (Google's BERT, with "
    "epsilon 1e-6)");
  v("groups", t.groups, "other rates for some parameters; the last group that matches decides", changeable);
}

class Adamw : public Optimizer {
 public:
  Adamw(std::vector<Parameter> parameters, const AdamwOptions& options);

 protected:
  void begin_step(const std::vector<int64_t>& steps) override;
  void update(const Block& block) const override;
  bool update_fused(const Fused& step) const override;
  void update_aten(Batch& batch) const override;

 private:
  AdamwOptions options_;
  struct Correction {
    double first = 1;        // 1 - beta1^step
    double second_root = 1;  // sqrt(1 - beta2^step)
  };
  std::vector<Correction> corrections_{{}};  // by age
};

}  // namespace tessera
