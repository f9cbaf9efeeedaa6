// Prints a schedule's factors for tests/trainer/test_schedules_oracle.py.
// usage: tool_schedule TOTAL "name: linear" "warm_up: 5%" …
#include <cstdio>

#include "tests/tools/choice.h"
#include "trainer/schedules/schedules.h"

int main(int argc, char** argv) {
  std::string text;
  for (int i = 2; i < argc; ++i) text += std::string(argv[i]) + "\n";
  try {
    const auto schedule = tessera::make_schedule(tessera::read_choice(text, tessera::schedule_choices()));
    const int64_t total = std::stoll(argv[1]);
    for (int64_t step = 0; step <= total + 3; ++step) std::printf("%.17g\n", schedule(step, total));
  } catch (const tessera::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
