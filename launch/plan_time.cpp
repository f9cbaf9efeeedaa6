#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "launch/plan.h"
#include "parallel/pipeline_schedule.h"

namespace tessera {
namespace {

constexpr int64_t longest_table = 20000;  // actions that are worth carrying out

/// One micro-batch on the slowest stage, in seconds.
struct MicroStep {
  double forward = 0, backward = 0;  ///< computation
  double tensor = 0, context = 0;    ///< messages
  double whole() const { return forward + backward + tensor + context; }
};

/// Bytes that a block reads and writes beside its products, forward and backward: two residual sums with
/// their norms (two operands and both results; three gradients, the sum, and the gradient of both operands),
/// and both ends of the activation function (their gradients and the nearer one).
struct PassedBytes {
  double forward = 0, backward = 0;
};

PassedBytes passed_by_block(const ModelFacts& facts, const Layout& layout, const RowCounts& rows) {
  const double states = static_cast<double>(layout.working * facts.hidden) * rows.own;
  const double middle = static_cast<double>(layout.working * facts.feed_forward) * rows.inside /
                        static_cast<double>(layout.tensor);
  return {2 * 4 * states + 2 * middle, 2 * 5 * states + 3 * middle};
}

MicroStep compute_stage(const ModelFacts& facts, const Layout& layout, const MachineFigures& machine,
                        const Stage& stage) {
  const RowCounts rows = count_rows(facts, layout);
  const auto blocks = static_cast<double>(stage.blocks), split = static_cast<double>(layout.tensor);
  const double rate = layout.working == 4 ? machine.flops_fp32 : machine.flops_16_bit;
  const double products = blocks * rows.inside * block_flops(facts) / split / rate;
  const double head = stage.last ? rows.predicted * head_flops(facts) / split / rate : 0;
  const double overhead = blocks * machine.block_overhead / 3;
  const PassedBytes passed = passed_by_block(facts, layout, rows);
  // The loss reads logits twice and writes their gradient.
  const double logits =
      stage.last ? 3 * static_cast<double>(layout.working * facts.vocab_size) * rows.predicted / split : 0;
  const double block = products + overhead + blocks * passed.forward / machine.memory_bandwidth;
  // Gradients of inputs go back to the lowest block that learns, those of weights are of what does.
  const double inputs = static_cast<double>(stage.learning), weights = stage.trained;
  const double backward = (products + overhead) * (inputs + weights) / std::max(1.0, blocks) +
                          inputs * passed.backward / machine.memory_bandwidth;
  const double again = layout.recompute ? block * inputs / std::max(1.0, blocks) : 0;
  return {block + head + logits / machine.memory_bandwidth, backward + 2 * head + again};
}

/// Sums of seconds by where they can hide.
using HiddenSeconds = std::array<double, 5>;

struct StageSeconds {
  MicroStep micro;
  HiddenSeconds shard{}, replicate{};
  double agreement = 0, message = 0;
};

StageSeconds stage_seconds(const ModelFacts& facts, const Layout& layout, const MachineFigures& machine,
                           const Stage& stage) {
  StageSeconds result{compute_stage(facts, layout, machine, stage)};
  const auto m = static_cast<double>(layout.micro_batches);
  for (const Flow& flow : step_traffic(facts, layout, stage)) {
    const double seconds = flow_seconds(flow, machine);
    const auto hidden = static_cast<size_t>(flow.hidden);
    switch (flow.axis[0]) {
      case 't':
        result.micro.tensor += seconds / m;
        break;
      case 'c':
        result.micro.context += seconds / m;
        break;
      case 's':
        result.shard[hidden] += seconds;
        break;
      case 'r':
        result.replicate[hidden] += seconds;
        break;
      case 'p':
        if (flow.pattern == Pattern::send) {
          result.message = std::max(result.message, seconds / flow.times);
        } else {
          result.replicate[static_cast<size_t>(Hidden::nowhere)] += seconds;
        }
        break;
      default:
        if (flow.hidden == Hidden::nowhere) result.agreement += seconds;
    }
  }
  return result;
}

/// What is left of messages that travel beside computation, of which `overlap` can hide.
double exposed(const HiddenSeconds& seconds, const MicroStep& micro, double micro_batches, double overlap) {
  // In the order of Hidden; what hides in backwards leaves less room beside all computation.
  std::array<double, 5> room = {0, micro.backward, micro_batches * micro.backward,
                                micro_batches * (micro.forward + micro.backward), micro.forward};
  for (const Hidden narrow : {Hidden::last_backward, Hidden::all_backwards}) {
    const auto i = static_cast<size_t>(narrow);
    room[static_cast<size_t>(Hidden::all_compute)] -= std::min(seconds[i], room[i]);
  }
  double left = 0;
  for (size_t i = 0; i < seconds.size(); ++i)
    left += seconds[i] - overlap * std::clamp(room[i], 0.0, seconds[i]);
  return left;
}

/// From the first forward to the last backward of all stages.
double makespan(const Layout& layout, const MicroStep& micro, double message, bool exact) {
  const auto m = static_cast<double>(layout.micro_batches), stages = static_cast<double>(layout.pipeline);
  const double part = micro.whole() / static_cast<double>(layout.chunks);
  if (layout.pipeline == 1) return m * part;
  const int64_t actions = 2 * layout.parts() * layout.micro_batches;
  if (!exact || actions > longest_table) return m * micro.whole() + (stages - 1) * (part + 2 * message);
  const double share = micro.forward / (micro.forward + micro.backward);
  const PipelineSizes sizes{static_cast<int>(layout.pipeline), static_cast<int>(layout.chunks),
                            static_cast<int>(layout.micro_batches)};
  return simulate(make_pipeline_table(layout.schedule, sizes),
                  {.forward = part * share, .backward = part * (1 - share), .message = message})
      .makespan;
}

/// Masters, state and gradients in fp32 are read, all but gradients written.
double optimizer_seconds(const ModelFacts& facts, const Layout& layout, const MachineFigures& machine,
                         const Stage& stage) {
  ParameterSum all = outer_sum(facts, layout, stage);
  const ParameterSum block = sum_of(facts.block, layout);
  const double n =
      trained_share(facts, layout, stage) * static_cast<double>(all.part + stage.blocks * block.part);
  const double state = static_cast<double>(facts.optimizer_state) /
                       static_cast<double>(std::max<int64_t>(1, facts.trained_total));
  return n * (12 + 8 * state + (layout.working == 2 ? 2 : 0)) / machine.memory_bandwidth;
}

double all_flops(const ModelFacts& facts, const Layout& layout) {
  const RowCounts rows = count_rows(facts, layout);
  const double micro =
      static_cast<double>(layout.micro_batches * layout.replicate * layout.shard * layout.context);
  const auto learning = static_cast<double>(facts.blocks - facts.trained.first_block);
  double weights = 0;
  for (const double share : facts.trained.blocks) weights += share;
  const double passes = static_cast<double>(facts.blocks) + learning * (layout.recompute ? 2 : 1) + weights;
  return micro * (rows.inside * block_flops(facts) * passes + rows.predicted * head_flops(facts) * 3);
}

}  // namespace

std::string StepTime::limits() const {
  std::pair<double, const char*> parts[] = {
      {compute, "compute"},          {tensor, "tensor messages"},
      {context, "context messages"}, {bubble, "pipeline bubble"},
      {shard, "shard messages"},     {replicate, "replicate messages"},
      {optimizer, "optimizer"},      {agreement, "agreement of all ranks"}};
  std::stable_sort(std::begin(parts), std::end(parts),
                   [](const auto& a, const auto& b) { return a.first > b.first; });
  return fmt::format("{} {:.0f} %, {} {:.0f} %", parts[0].second, 100 * parts[0].first / total,
                     parts[1].second, 100 * parts[1].first / total);
}

StepTime step_time(const ModelFacts& facts, const Layout& layout, const MachineFigures& machine, bool exact) {
  // The slowest stage sets the pace: it is the first, the last, or like the second.
  StageSeconds slowest;
  int64_t index = 0;
  for (const int64_t each : {int64_t{0}, std::min<int64_t>(1, layout.pipeline - 1), layout.pipeline - 1}) {
    const StageSeconds seconds = stage_seconds(facts, layout, machine, stage_of(facts, layout, each));
    slowest.message = std::max(slowest.message, seconds.message);
    if (seconds.micro.whole() < slowest.micro.whole()) continue;
    const double message = slowest.message;
    slowest = seconds;
    slowest.message = message;
    index = each;
  }
  const auto m = static_cast<double>(layout.micro_batches);
  StepTime time;
  time.compute = m * (slowest.micro.forward + slowest.micro.backward);
  time.tensor = m * slowest.micro.tensor;
  time.context = m * slowest.micro.context;
  time.bubble = makespan(layout, slowest.micro, slowest.message, exact) - m * slowest.micro.whole();
  time.shard = exposed(slowest.shard, slowest.micro, m, machine.overlap);
  time.replicate = exposed(slowest.replicate, slowest.micro, m, machine.overlap);
  time.optimizer = optimizer_seconds(facts, layout, machine, stage_of(facts, layout, index));
  time.agreement = slowest.agreement;
  time.total = time.compute + time.tensor + time.context + time.bubble + time.shard + time.replicate +
               time.optimizer + time.agreement;
  time.flops = all_flops(facts, layout);
  return time;
}

}  // namespace tessera
