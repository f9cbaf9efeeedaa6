#include "recipes/sections.h"

#include <fmt/format.h>

#include "recipes/error.h"

namespace tessera {

void check(const RunSection& t, Problems& problems) {
  if (t.folder.empty()) problems.add("folder", "is empty; valid: a path, such as runs/bert-mini");
  if (t.resume.empty()) problems.add("resume", "is empty; valid: auto, never, or a path");
}

bool Value<DataSources>::read(const Section& section, DataSources& value, const Rules& rules,
                              Problems& problems) {
  if (section.kind == Section::Kind::scalar) {
    value.sources = {{section.text}};
    return true;
  }
  if (section.kind != Section::Kind::list || section.items.empty()) {
    problems.add("", section.kind == Section::Kind::list
                         ? "the list is empty; valid: " + valid(rules)
                         : describe(section) + " is not a path; valid: " + valid(rules));
    return false;
  }
  return Value<std::vector<DataSource>>::read(section, value.sources, rules, problems);
}

Section Value<DataSources>::write(const DataSources& value) {
  if (value.sources.size() == 1) return Value<std::string>::write(value.sources.front().path);
  return Value<std::vector<DataSource>>::write(value.sources);
}

void check(const TrainSection& t, Problems& problems) {
  if (!t.steps && !t.epochs)
    problems.add("steps", "missing; valid: a length in steps, or in epochs (train.epochs)");
  if (t.steps && t.epochs) {
    problems.add("epochs",
                 "the length is given in steps as well; valid: one of the two (train.steps=null takes the "
                 "steps back)");
  }
  if (t.global_batch % t.micro_batch != 0) {
    const int64_t below = t.global_batch / t.micro_batch * t.micro_batch;
    int64_t divisor = std::min(t.micro_batch, t.global_batch);
    while (t.global_batch % divisor != 0) --divisor;
    problems.add("global_batch",
                 fmt::format("{} is not divisible by micro_batch {}; valid: global_batch {}{}, or "
                             "micro_batch {}",
                             t.global_batch, t.micro_batch, below ? fmt::format("{} or ", below) : "",
                             below + t.micro_batch, divisor));
  }
  constexpr double largest = 16777216;  // what a gradient is multiplied by must leave room in fp16
  if (t.precision == Precision::fp16 && t.loss_scale > largest) {
    problems.add("loss_scale", fmt::format("{} overflows fp16 in every step; valid: 1 to {}", t.loss_scale,
                                           static_cast<int64_t>(largest)));
  }
}

}  // namespace tessera
