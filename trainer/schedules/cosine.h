#pragma once
#include <cmath>
#include <numbers>

#include "trainer/schedules/schedules.h"

namespace tessera {

/// Half a cosine after the warm-up, to `final` at the end of the run (Loshchilov and Hutter, "SGDR", 2017).
struct CosineOptions {
  StepsOrPercent warm_up;
  double final = 0;

  double at(int64_t step, int64_t total) const {
    const int64_t rise = warm_up.steps(total);
    if (step < rise) return warm_up_factor(step, rise);
    const double wave = 0.5 * (1 + std::cos(std::numbers::pi * progress_after(step, rise, total)));
    return final + (1 - final) * wave;
  }
};
template <class V>
void fields(CosineOptions& t, V& v) {
  v("warm_up", t.warm_up, "steps in which the rate rises from 0, or per cent of all", changeable);
  v("final", t.final, "share of the rate that is left at the end", changeable, range(0, 1));
}

}  // namespace tessera
