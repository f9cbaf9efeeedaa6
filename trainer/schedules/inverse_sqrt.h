#pragma once
#include <algorithm>
#include <cmath>

#include "trainer/schedules/schedules.h"

namespace tessera {

/// One over the root of the step after the warm-up, where the factor is 1 (Vaswani et al., "Attention is all
/// you need", 2017, with the peak as learning rate).
struct InverseSqrtOptions {
  StepsOrPercent warm_up{4000, false};
  double final = 0;

  double at(int64_t step, int64_t total) const {
    const int64_t rise = std::max<int64_t>(1, warm_up.steps(total));
    if (step < rise) return warm_up_factor(step, rise);
    return std::max(final, std::sqrt(static_cast<double>(rise) / static_cast<double>(step)));
  }
};
template <class V>
void fields(InverseSqrtOptions& t, V& v) {
  v("warm_up", t.warm_up, "steps in which the rate rises from 0, or per cent of all", changeable);
  v("final", t.final, "share of the rate below which it does not fall", changeable, range(0, 1));
}

}  // namespace tessera
