#include "launch/plan_text.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace tessera {
namespace {

void detail(const std::string& name, const std::string& value, const std::string& why) {
  print_line("", fmt::format("{:<30}{:>14}{}", name, value, why.empty() ? "" : "  " + why));
}

void print_mesh(const Layout& layout) {
  if (layout.ranks == 1) return;
  std::string hosts;
  if (layout.hosts > 1)
    hosts = fmt::format(" on {} hosts of {}", with_commas(layout.hosts), layout.ranks / layout.hosts);
  std::vector<std::string> axes;
  for (int axis = 0; axis < num_axes; ++axis)
    axes.push_back(
        fmt::format("{} {}", axis_name(static_cast<Axis>(axis)), layout.size(static_cast<Axis>(axis))));
  print_line("ranks", fmt::format("{}{} = {}", with_commas(layout.ranks), hosts, join(axes, " x ")));
}

std::string pipeline_text(const Forecast& plan) {
  const Layout& layout = plan.layout;
  const StepTime& time = plan.time;
  const double busy = time.compute + time.tensor + time.context;
  return fmt::format("{}, {} micro-batches: idle {:.1f} % of the time; first blocks {}",
                     names_of(layout.schedule)[static_cast<size_t>(layout.schedule)], layout.micro_batches,
                     100 * time.bubble / (busy + time.bubble), fmt::join(layout.first_blocks, ", "));
}

std::string memory_text(const Forecast& plan) {
  const Memory& memory = plan.memory;
  return fmt::format("{} per rank {}{}, about", bytes_text(memory.total), memory.moment,
                     plan.layout.pipeline > 1 ? fmt::format(", on stage {}, the fullest", memory.stage) : "");
}

std::string gradient_kind(const Layout& layout) {
  if (layout.shard == 1) return layout.working == 4 ? "fp32" : "summed in fp32";
  return layout.zero == 1 ? "own part; whole ones on their way" : "own part, and units on their way";
}

void print_memory(const ModelFacts& facts, const Forecast& plan) {
  const Memory& memory = plan.memory;
  const Layout& layout = plan.layout;
  print_line("memory", memory_text(plan));
  const auto row = [&](const char* name, double bytes, const std::string& why) {
    if (bytes > 0) detail(name, bytes_text(bytes), why);
  };
  row("weights", memory.weights,
      fmt::format("fp32, {} parameters", with_commas(std::llround(memory.weights / 4))));
  row("working weights", memory.working, layout.working == 2 ? "16 bits" : "fp32");
  row("gathered weights", memory.gathered,
      layout.zero == 3 ? fmt::format("a block and {} ahead", layout.prefetch) : "all");
  row("gradients", memory.gradients, gradient_kind(layout));
  row("optimizer state", memory.optimizer, "fp32");
  row("moving average", memory.average, "fp32");
  const Stage stage_facts = stage_of(facts, layout, memory.stage);
  row("activations", memory.activations,
      fmt::format("{} block{}{}{}", stage_facts.blocks, stage_facts.blocks == 1 ? "" : "s",
                  layout.recompute ? ", only their inputs"
                                   : fmt::format(" of {}", bytes_text(block_activations(facts, layout))),
                  layout.pipeline > 1
                      ? fmt::format(", {} {} alive", stage_facts.live,
                                    layout.chunks > 1 ? "parts of micro-batches" : "micro-batches")
                      : ""));
  row("logits", memory.logits, "");
  row("in use by one block or loss", memory.temporary, "");
  row("in the host's memory, beside", memory.host, "masters and optimizer state");
}

void print_traffic(const Forecast& plan) {
  double messages = 0, sent = 0;
  for (const Flow& flow : plan.traffic) {
    messages += flow.times;
    sent += flow.times * flow.sent();
  }
  if (plan.traffic.empty()) return;
  const std::string stage =
      plan.layout.pipeline > 1 ? fmt::format(", on stage {}, the busiest", plan.traffic_stage) : "";
  print_line("traffic", fmt::format("{} sent per rank and step in {} messages{}", bytes_text(sent),
                                    with_commas(static_cast<int64_t>(messages)), stage));
  for (const Flow& flow : plan.traffic) {
    if (flow.pattern == Pattern::receive) continue;
    print_line("", fmt::format("{:<10}{:<36}{:>7} x {:>9} {}", flow.axis, flow.what,
                               with_commas(static_cast<int64_t>(flow.times)), bytes_text(flow.bytes),
                               flow.per_host < flow.ranks ? "between hosts" : ""));
  }
}

std::string duration_text(double seconds) {
  if (seconds < 7200) return fmt::format("{:.0f} min", seconds / 60);
  return seconds < 172800 ? fmt::format("{:.1f} h", seconds / 3600)
                          : fmt::format("{:.1f} days", seconds / 86400);
}

void print_time(const ModelFacts& facts, const Forecast& plan, int64_t steps) {
  const StepTime& time = plan.time;
  const Layout& layout = plan.layout;
  const double tokens = static_cast<double>(layout.micro_batch * layout.micro_batches * layout.replicate *
                                            layout.shard * facts.sequence);
  print_line("time",
             fmt::format("{} per step, {} tokens/s{}, about", seconds_text(time.total),
                         with_commas(static_cast<int64_t>(tokens / time.total)),
                         steps > 0 ? fmt::format(", {} for the run",
                                                 duration_text(time.total * static_cast<double>(steps)))
                                   : ""));
  const auto row = [&](const char* name, double seconds, const std::string& why) {
    if (seconds > 0.0005 * time.total) detail(name, seconds_text(seconds), why);
  };
  row("compute", time.compute,
      fmt::format("{:.3g} TFLOP on each rank{}", time.flops / static_cast<double>(layout.ranks) / 1e12,
                  layout.recompute ? ", a quarter of it for recomputation" : ""));
  row("tensor messages", time.tensor, "");
  row("context messages", time.context, "");
  row("pipeline bubble", time.bubble, "");
  row("shard messages", time.shard, "what computation does not hide");
  row("replicate messages", time.replicate, "what computation does not hide");
  row("optimizer", time.optimizer, "");
  row("agreement of all ranks", time.agreement, "");
}

struct AxisTraffic {
  std::string name;
  double messages = 0, bytes = 0;
};

std::vector<AxisTraffic> sent_by_axis(const std::vector<Flow>& flows) {
  std::vector<AxisTraffic> axes;
  for (const Flow& flow : flows) {
    if (axes.empty() || axes.back().name != flow.axis) axes.push_back({flow.axis});
    axes.back().messages += flow.times;
    axes.back().bytes += flow.times * flow.sent();
  }
  return axes;
}

nlohmann::ordered_json traffic_json(const std::vector<Flow>& flows) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& axis : sent_by_axis(flows))
    json[axis.name] = {{"messages", axis.messages}, {"sent", axis.bytes}};
  return json;
}

}  // namespace

void print_line(const std::string& title, const std::string& text) { fmt::print("{:<11}{}\n", title, text); }

void print_plan(const ModelFacts& facts, const Forecast& plan, const MachineFigures& machine, int64_t steps) {
  print_mesh(plan.layout);
  if (plan.layout.pipeline > 1) print_line("pipeline", pipeline_text(plan));
  print_memory(facts, plan);
  print_traffic(plan);
  print_time(facts, plan, steps);
  print_line("figures", machine.source);
}

void add_plan_rows(const Forecast& plan, Table& table) {
  const Memory& memory = plan.memory;
  table.heading("plan");
  table.row("memory",
            fmt::format("{}\nparameters {}, gradients {}, optimizer {}, activations {}", memory_text(plan),
                        bytes_text(memory.weights + memory.working + memory.gathered),
                        bytes_text(memory.gradients), bytes_text(memory.optimizer + memory.average),
                        bytes_text(memory.activations + memory.logits + memory.temporary)));
  std::vector<std::string> sent;
  for (const auto& axis : sent_by_axis(plan.traffic))
    sent.push_back(fmt::format("{} {}", axis.name, bytes_text(axis.bytes)));
  if (!sent.empty()) {
    table.row("messages", fmt::format("{} per rank and step{}", join(sent),
                                      plan.layout.pipeline > 1
                                          ? fmt::format(", on stage {}, the busiest", plan.traffic_stage)
                                          : ""));
  }
  if (plan.layout.pipeline > 1) table.row("pipeline", pipeline_text(plan));
}

void print_suggestions(const Suggestions& suggestions, const Layout& base, const std::string& limit) {
  print_line("layouts",
             fmt::format("{} considered, {} fit in {}; the fastest, by estimate:",
                         with_commas(suggestions.considered), with_commas(suggestions.fitting), limit));
  for (const Forecast& plan : suggestions.best) {
    const auto overrides = overrides_of(base, plan.layout);
    print_line("", fmt::format("{:>8} per step, {:>9} per rank; {}", seconds_text(plan.time.total),
                               bytes_text(plan.memory.total), plan.time.limits()));
    print_line("", "    " + (overrides.empty() ? "(the recipe as it is)" : join(overrides, " ")));
  }
}

std::string plan_json(const ModelFacts& facts, const Forecast& plan) {
  const Memory& memory = plan.memory;
  const StepTime& time = plan.time;
  nlohmann::ordered_json json;
  std::vector<double> stages;  // of each one's fullest rank
  for (int64_t index = 0; index < plan.layout.pipeline; ++index) {
    stages.push_back(stage_memory(facts, plan.layout, stage_of(facts, plan.layout, index)).total);
  }
  json["memory"] = {{"stage", memory.stage},
                    {"parameters", memory.parameters},
                    {"weights", memory.weights},
                    {"working", memory.working},
                    {"gathered", memory.gathered},
                    {"gradients", memory.gradients},
                    {"optimizer", memory.optimizer},
                    {"average", memory.average},
                    {"host", memory.host},
                    {"activations", memory.activations},
                    {"logits", memory.logits},
                    {"temporary", memory.temporary},
                    {"total", memory.total},
                    {"stages", stages},
                    {"block_activations", block_activations(facts, plan.layout)}};
  json["traffic"] = traffic_json(plan.traffic);
  for (int64_t stage = 0; stage < plan.layout.pipeline; ++stage) {
    json["stage_traffic"].push_back(
        traffic_json(step_traffic(facts, plan.layout, stage_of(facts, plan.layout, stage))));
  }
  json["time"] = {{"compute", time.compute},     {"tensor", time.tensor},       {"context", time.context},
                  {"bubble", time.bubble},       {"shard", time.shard},         {"replicate", time.replicate},
                  {"optimizer", time.optimizer}, {"agreement", time.agreement}, {"total", time.total}};
  return json.dump(2);
}

}  // namespace tessera
