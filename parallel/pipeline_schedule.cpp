#include "parallel/pipeline_schedule.h"

#include <fmt/format.h>

#include <algorithm>

#include "recipes/error.h"

namespace tessera {
namespace {
using Actions = std::vector<PipelineAction>;

void check_sizes(const PipelineSizes& sizes) {
  const auto check = [](const char* what, int value) {
    if (value < 1) throw Error(fmt::format("a pipeline of {} {}; valid: at least 1", value, what));
  };
  check("stages", sizes.stages);
  check("chunks per stage", sizes.chunks);
  check("micro-batches", sizes.micro_batches);
}

void check_one_chunk(const std::string& name, const PipelineSizes& sizes) {
  if (sizes.chunks == 1) return;
  throw Error(fmt::format("{} has 1 chunk per stage, not {}; several: {}", name, sizes.chunks,
                          names_of(PipelineSchedule{})[static_cast<size_t>(PipelineSchedule::interleaved)]));
}

void check_interleaved(const PipelineSizes& sizes) {
  const int stages = sizes.stages;
  const int given = sizes.micro_batches;
  if (given % stages == 0) return;
  const int below = given / stages * stages;
  const bool up = below == 0 || below + stages - given < given - below;
  throw Error(
      fmt::format("interleaved: {} micro-batches are not a multiple of {} stages; valid: {}, {}, {}, …; the "
                  "nearest: {}",
                  given, stages, stages, 2 * stages, 3 * stages, up ? below + stages : below));
}

// The i-th forward (or backward) of every stage under interleaving: groups of as many micro-batches as there
// are stages go through one chunk after the other.
PipelineAction nth_interleaved(const PipelineSizes& sizes, Phase phase, int i) {
  const int per_group = sizes.stages * sizes.chunks;
  const int chunk = i % per_group / sizes.stages;
  return {phase, phase == Phase::forward ? chunk : sizes.chunks - 1 - chunk,
          i / per_group * sizes.stages + i % sizes.stages};
}

// `warm_up` forwards, then a forward and a backward in turn, then the other backwards.
Actions alternate(const Actions& forwards, const Actions& backwards, size_t warm_up) {
  Actions actions(forwards.begin(), forwards.begin() + static_cast<int64_t>(warm_up));
  for (size_t i = 0; i < backwards.size(); ++i) {
    if (warm_up + i < forwards.size()) actions.push_back(forwards[warm_up + i]);
    actions.push_back(backwards[i]);
  }
  return actions;
}

// All micro-batches through the first chunk, then through the second, …
Actions breadth_first(const PipelineSizes& sizes, Phase phase) {
  Actions actions;
  for (int i = 0; i < sizes.chunks; ++i) {
    const int chunk = phase == Phase::forward ? i : sizes.chunks - 1 - i;
    for (int micro_batch = 0; micro_batch < sizes.micro_batches; ++micro_batch) {
      actions.push_back({phase, chunk, micro_batch});
    }
  }
  return actions;
}

Actions interleaved(const PipelineSizes& sizes, int stage) {
  const int count = sizes.chunks * sizes.micro_batches;
  Actions forwards;
  Actions backwards;
  for (int i = 0; i < count; ++i) {
    forwards.push_back(nth_interleaved(sizes, Phase::forward, i));
    backwards.push_back(nth_interleaved(sizes, Phase::backward, i));
  }
  const int warm_up = 2 * (sizes.stages - stage - 1) + (sizes.chunks - 1) * sizes.stages;
  return alternate(forwards, backwards, std::min(count, warm_up));
}

Actions stage_actions(PipelineSchedule kind, const PipelineSizes& sizes, int stage) {
  if (kind == PipelineSchedule::interleaved) return interleaved(sizes, stage);
  const Actions forwards = breadth_first(sizes, Phase::forward);
  const Actions backwards = breadth_first(sizes, Phase::backward);
  const int warm_up = kind == PipelineSchedule::gpipe
                          ? static_cast<int>(forwards.size())
                          : std::min(sizes.micro_batches, sizes.stages - stage - 1);
  return alternate(forwards, backwards, warm_up);
}
}  // namespace

PipelineTable make_pipeline_table(PipelineSchedule kind, const PipelineSizes& sizes) {
  check_sizes(sizes);
  if (kind == PipelineSchedule::one_f_one_b) check_one_chunk("1f1b", sizes);
  if (kind == PipelineSchedule::interleaved) check_interleaved(sizes);
  PipelineTable table{sizes, {}};
  for (int stage = 0; stage < sizes.stages; ++stage) {
    table.stages.push_back(stage_actions(kind, sizes, stage));
  }
  return table;
}

// 1F1B, where stage s does the weights' gradients s micro-batches late: then every stage has as many live
// activations as the first one, and the last stages, which have none to spare otherwise, fill their bubble.
PipelineTable make_zero_bubble_table(const PipelineSizes& sizes) {
  PipelineTable table = make_pipeline_table(PipelineSchedule::one_f_one_b, sizes);
  for (int stage = 0; stage < sizes.stages; ++stage) {
    Actions actions;
    for (const PipelineAction& action : table.stages[stage]) {
      if (action.phase == Phase::forward) {
        actions.push_back(action);
        continue;
      }
      actions.push_back({Phase::input_gradient, 0, action.micro_batch});
      const int late = action.micro_batch - stage;
      if (late >= 0) actions.push_back({Phase::weight_gradient, 0, late});
    }
    for (int late = std::max(0, sizes.micro_batches - stage); late < sizes.micro_batches; ++late) {
      actions.push_back({Phase::weight_gradient, 0, late});
    }
    table.stages[stage] = std::move(actions);
  }
  return table;
}

PipelineTable make_forward_table(const PipelineSizes& sizes) {
  check_sizes(sizes);
  return {sizes, std::vector<Actions>(sizes.stages, breadth_first(sizes, Phase::forward))};
}

std::optional<PipelineInput> input_of(const PipelineTable& table, int stage, const PipelineAction& action) {
  if (action.phase == Phase::weight_gradient) return std::nullopt;
  const int from = table.part(stage, action) + (action.phase == Phase::forward ? -1 : 1);
  if (from < 0 || from == table.sizes.parts()) return std::nullopt;
  const int stages = table.sizes.stages;
  return PipelineInput{from % stages, {action.phase, from / stages, action.micro_batch}};
}

std::vector<PipelineAction> link_messages(const PipelineTable& table, int sender, int receiver, Phase phase) {
  const int stages = table.sizes.stages;
  std::vector<PipelineAction> list;
  for (const PipelineAction& action : table.stages[sender]) {
    const int to = table.part(sender, action) + (phase == Phase::forward ? 1 : -1);
    if (action.phase != phase || to < 0 || to == table.sizes.parts() || to % stages != receiver) continue;
    list.push_back({phase, to / stages, action.micro_batch});
  }
  return list;
}
}  // namespace tessera
