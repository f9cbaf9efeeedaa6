#include "trainer/schedules/schedules.h"

#include "trainer/schedules/constant.h"
#include "trainer/schedules/cosine.h"
#include "trainer/schedules/inverse_sqrt.h"
#include "trainer/schedules/linear.h"

namespace tessera {
namespace {

struct Entry {
  ChoiceEntry choice;
  Schedule (*make)(const Choice&);
};

template <class Options>
Entry entry(const char* name, const char* summary) {
  return {choice<Options>(name, summary), [](const Choice& given) -> Schedule {
            return [options = given.as<Options>()](int64_t step, int64_t total) {
              return options.at(step, total);
            };
          }};
}

const std::vector<Entry>& table() {
  static const std::vector<Entry> entries = {
      entry<LinearOptions>("linear", "straight down to the end of the run"),
      entry<CosineOptions>("cosine", "half a cosine down to the end of the run"),
      entry<InverseSqrtOptions>("inverse_sqrt", "one over the root of the step"),
      entry<ConstantOptions>("constant", "the same rate throughout"),
  };
  return entries;
}

}  // namespace

const ChoiceTable& schedule_choices() {
  static const ChoiceTable choices = [] {
    ChoiceTable made{"name", {}};
    for (const auto& entry : table()) made.entries.push_back(entry.choice);
    return made;
  }();
  return choices;
}

Schedule make_schedule(const Choice& choice) {
  for (const auto& entry : table()) {
    if (entry.choice.name == choice.name()) return entry.make(choice);
  }
  throw std::logic_error("no schedule '" + choice.name() + "'");
}

}  // namespace tessera
