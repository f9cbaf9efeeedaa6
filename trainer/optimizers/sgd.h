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
  std::vector<ParameterGroup> groups;
};
template <class V>
void fields(SgdOptions& t, V& v) {
  v("learning_rate", t.learning_rate, "step size at the height of the schedule", required, changeable,
    above(0));
  v("momentum", t.momentum, "share of the last direction that is kept", at_least(0), below(1));
  v("nesterov", t.nesterov, "look ahead along the momentum", changeable);
  v("weight_decay", t.weight_decay, "share of each weight added to its gradient; not of norms and biases",
    changeable, at_least(0));
  v("groups", t.groups, "other rates for some parameters; the last group that matches decides", changeable);
}
inline void check(const SgdOptions& t, Problems& problems) {
  if (t.nesterov && t.momentum == 0) problems.add("nesterov", "needs a momentum above 0");
}

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
