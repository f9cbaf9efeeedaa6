#include "trainer/schedules/schedules.h"

#include "trainer/schedules/constant.h"
#include "trainer/schedules/cosine.h"
#include "trainer/schedules/inverse_sqrt.h"
#include "trainer/schedules/linear.h"

namespace tessera {
namespace {

using ScheduleRegistry = Registry<Schedule>;

template <class Options>
ScheduleRegistry::Entry schedule(const char* name, const char* summary) {
  return {choice<Options>(name, summary), [](const Choice& given) -> Schedule {
            return [options = given.as<Options>()](int64_t step, int64_t total) {
              return options.at(step, total);
            };
          }};
}

const ScheduleRegistry& schedules() {
  static const ScheduleRegistry registry(
      "name", {
                  schedule<LinearOptions>("linear", "straight down to the end of the run"),
                  schedule<CosineOptions>("cosine", "half a cosine down to the end of the run"),
                  schedule<InverseSqrtOptions>("inverse_sqrt", "one over the root of the step"),
                  schedule<ConstantOptions>("constant", "the same rate throughout"),
              });
  return registry;
}

}  // namespace

const ChoiceTable& schedule_choices() { return schedules().choices(); }

Schedule make_schedule(const Choice& choice) { return schedules().make(choice); }

}  // namespace tessera
