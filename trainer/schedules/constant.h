#pragma once
#include "trainer/schedules/schedules.h"

namespace tessera {

/// The full rate after the warm-up.
struct ConstantOptions {
  StepsOrPercent warm_up;

  double at(int64_t step, int64_t total) const { return warm_up_factor(step, warm_up.steps(total)); }
};
template <class V>
void fields(ConstantOptions& t, V& v) {
  v("warm_up", t.warm_up, "steps in which the rate rises from 0, or per cent of all", changeable);
}

}  // namespace tessera
