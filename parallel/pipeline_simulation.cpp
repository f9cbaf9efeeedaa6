// What a pipeline's table would do, and how it looks.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <stdexcept>
#include <tuple>

#include "parallel/pipeline_schedule.h"
#include "recipes/error.h"

namespace tessera {
namespace {
std::string action_name(const PipelineAction& action) {
  static const char* const names[] = {"forward", "backward", "gradient of the input", "gradient of weights"};
  return fmt::format("the {} of chunk {}, micro-batch {}", names[static_cast<int>(action.phase)],
                     action.chunk, action.micro_batch);
}

class PipelineSimulation {
 public:
  PipelineSimulation(const PipelineTable& table, const PipelineTimes& times)
      : table_(table), times_(times), stages_(table.stages.size()), at_(stages_), free_(stages_) {
    result_.starts.resize(stages_);
  }

  PipelineForecast run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (size_t stage = 0; stage < stages_; ++stage) {
        while (at_[stage] < table_.stages[stage].size() && step(stage)) moved = true;
      }
    }
    report_deadlock();
    result_.makespan = stages_ == 0 ? 0 : *std::max_element(free_.begin(), free_.end());
    for (size_t stage = 0; stage < stages_; ++stage) summarise(stage);
    return std::move(result_);
  }

 private:
  using Key = std::tuple<int, Phase, int, int>;
  static Key key(size_t stage, const PipelineAction& action) {
    return {static_cast<int>(stage), action.phase, action.chunk, action.micro_batch};
  }

  double duration(Phase phase) const {
    switch (phase) {
      case Phase::forward:
        return times_.forward;
      case Phase::backward:
        return times_.backward;
      case Phase::input_gradient:
        return times_.input_gradient;
      default:
        return times_.weight_gradient;
    }
  }

  // What must have ended before the action, other than what stands before it in the table.
  std::vector<PipelineInput> needs(size_t stage, const PipelineAction& action) const {
    std::vector<PipelineInput> list;
    const int here = static_cast<int>(stage);
    if (const auto input = input_of(table_, here, action)) list.push_back(*input);
    PipelineAction earlier = action;
    earlier.phase = action.phase == Phase::weight_gradient ? Phase::input_gradient : Phase::forward;
    if (action.phase != Phase::forward) list.push_back({here, earlier});
    return list;
  }

  bool step(size_t stage) {
    const PipelineAction& action = table_.stages[stage][at_[stage]];
    double start = free_[stage];
    for (const PipelineInput& need : needs(stage, action)) {
      const auto end = ends_.find(key(need.stage, need.action));
      if (end == ends_.end()) return false;
      const bool sent = need.stage != static_cast<int>(stage);
      start = std::max(start, end->second + (sent ? times_.message : 0));
    }
    result_.starts[stage].push_back(start);
    free_[stage] = ends_[key(stage, action)] = start + duration(action.phase);
    ++at_[stage];
    return true;
  }

  void report_deadlock() {
    std::vector<std::string> stuck;
    for (size_t stage = 0; stage < stages_; ++stage) {
      if (at_[stage] == table_.stages[stage].size()) continue;
      for (const PipelineInput& need : needs(stage, table_.stages[stage][at_[stage]])) {
        if (ends_.count(key(need.stage, need.action))) continue;
        stuck.push_back(
            fmt::format("stage {} waits for {} on stage {}", stage, action_name(need.action), need.stage));
      }
    }
    result_.deadlock = join(stuck, "; ");
  }

  void summarise(size_t stage) {
    double busy = 0;
    int live = 0;
    int peak = 0;
    for (const PipelineAction& action : table_.stages[stage]) {
      busy += duration(action.phase);
      if (action.phase == Phase::forward) peak = std::max(peak, ++live);
      if (action.phase == Phase::backward || action.phase == Phase::weight_gradient) --live;
    }
    result_.bubble.push_back(result_.makespan > 0 ? 1 - busy / result_.makespan : 0);
    result_.peak_live.push_back(peak);
  }

  const PipelineTable& table_;
  PipelineTimes times_;
  size_t stages_;
  std::vector<size_t> at_;    // each stage's next action
  std::vector<double> free_;  // when each stage has done those before
  std::map<Key, double> ends_;
  PipelineForecast result_;
};

std::string cell(const PipelineAction& action, bool chunks) {
  std::string text = fmt::format("{}{}", "FBIW"[static_cast<int>(action.phase)], action.micro_batch);
  if (chunks) text += static_cast<char>('a' + action.chunk % 26);
  return text;
}
}  // namespace

PipelineForecast simulate(const PipelineTable& table, const PipelineTimes& times) {
  return PipelineSimulation(table, times).run();
}

std::string draw(const PipelineTable& table) {
  const PipelineForecast forecast = simulate(table, {1, 1, 0, 1, 1});
  if (!forecast.deadlock.empty()) throw std::logic_error("the table deadlocks: " + forecast.deadlock);
  const bool chunks = table.sizes.chunks > 1;
  const size_t width = cell({Phase::forward, 0, table.sizes.micro_batches - 1}, chunks).size();
  std::string text;
  for (size_t stage = 0; stage < table.stages.size(); ++stage) {
    std::vector<std::string> slots(static_cast<size_t>(forecast.makespan), ".");
    for (size_t i = 0; i < table.stages[stage].size(); ++i) {
      slots[static_cast<size_t>(forecast.starts[stage][i])] = cell(table.stages[stage][i], chunks);
    }
    std::string row = fmt::format("stage {} |", stage);
    for (const std::string& slot : slots) row += fmt::format(" {:<{}}", slot, width);
    row.erase(row.find_last_not_of(' ') + 1);
    text += row + "\n";
  }
  return text;
}

}  // namespace tessera
