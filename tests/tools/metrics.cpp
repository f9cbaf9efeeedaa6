// Writes metrics and TensorBoard events for tests/trainer/test_metrics.py: a run of 30 steps, then one that
// resumes at 20. usage: tool_metrics FOLDER
#include "trainer/metrics.h"

#include <cmath>

int main(int, char** argv) {
  using namespace tessera;
  const std::string folder = argv[1];
  for (const int64_t resumed : {0, 20}) {
    MetricsLog log(folder + "/metrics.jsonl", resumed);
    EventWriter events(folder, resumed);
    if (resumed == 0) events.text(0, "recipe", "    model: {family: bert}\n    # ünïcode");
    for (int64_t step = resumed + 1; step <= resumed + 30; ++step) {
      const std::vector<Metric> metrics = {
          {"loss", 100.0 * static_cast<double>(resumed) + static_cast<double>(step)},
          {"validation/loss", step % 7 == 0 ? NAN : 0.1}};
      log.write(step, metrics);
      events.scalars(step, metrics);
    }
  }
}
