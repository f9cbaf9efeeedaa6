#pragma once
#include <functional>

#include "recipes/registry.h"

namespace tessera {

/// The factor of the learning rate for the step that follows `step` steps already taken, in a run of `total`
/// steps. As in the usual conventions, the first step of a warm-up (step 0) has factor 0.
using Schedule = std::function<double(int64_t step, int64_t total)>;

/// What `schedule.name` may be. A new one: a file beside this and a line in schedules.cpp.
const ChoiceTable& schedule_choices();

Schedule make_schedule(const Choice& choice);

/// The rise from 0 at step 0 to 1 at step `warm_up`; 1 from there on.
inline double warm_up_factor(int64_t step, int64_t warm_up) {
  return step < warm_up ? static_cast<double>(step) / static_cast<double>(warm_up) : 1.0;
}

/// Where between the end of the warm-up (0) and the end of the run (1) a step lies.
inline double progress_after(int64_t step, int64_t warm_up, int64_t total) {
  if (step >= total) return 1;
  return step <= warm_up ? 0.0 : static_cast<double>(step - warm_up) / static_cast<double>(total - warm_up);
}

}  // namespace tessera
