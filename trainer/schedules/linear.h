#pragma once
#include "trainer/schedules/schedules.h"

namespace tessera {

/// Straight down after the warm-up, to `final` at the end of the run.
struct LinearOptions {
  StepsOrPercent warm_up;
  double final = 0;

  double at(int64_t step, int64_t total) const {
    const int64_t rise = warm_up.steps(total);
    return step < rise ? warm_up_factor(step, rise) : 1 - (1 - final) * progress_after(step, rise, total);
  }
};
template <class V>
void fields(LinearOptions& t, V& v) {
  v("warm_up", t.warm_up, "steps in which the rate rises from 0, or per cent of all", changeable);
  v("final", t.final, "share of the rate that is left at the end", changeable, range(0, 1));
}

}  // namespace tessera
