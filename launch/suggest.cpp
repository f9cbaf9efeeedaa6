#include "launch/suggest.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <tuple>

namespace tessera {
namespace {

constexpr int64_t largest_tensor = 64;  // more ranks on a layer have too little each
constexpr int64_t shortest_run = 256;   // positions that a rank of the context axis should have
constexpr int64_t largest_micro_batch = 256;

std::vector<int64_t> divisors_of(int64_t number, int64_t limit) {
  std::vector<int64_t> list;
  for (int64_t i = 1; i <= std::min(number, limit); ++i) {
    if (number % i == 0) list.push_back(i);
  }
  return list;
}

class Search {
 public:
  Search(const ModelFacts& facts, const Layout& base, const MachineFigures& machine,
         const SuggestOptions& options)
      : facts_(facts), base_(base), machine_(machine), options_(options) {}

  Suggestions run() {
    for (const int64_t tensor : divisors_of(options_.ranks, largest_tensor)) {
      if (facts_.heads % tensor != 0 || facts_.feed_forward < tensor || facts_.vocab_size < tensor) continue;
      for (const int64_t context : divisors_of(options_.ranks / tensor, facts_.sequence))
        try_context(tensor, context);
    }
    return finish();
  }

 private:
  struct Found {
    Layout layout;
    double seconds, memory;
  };

  void try_context(int64_t tensor, int64_t context) {
    if (context > 1 && (facts_.keeps_attention || facts_.sequence < context * shortest_run)) return;
    if (facts_.sequence < 2 * context * tensor) return;
    for (const ContextMethod method : {ContextMethod::ring, ContextMethod::ulysses}) {
      if (context == 1 && method != ContextMethod::ring) continue;
      if (method == ContextMethod::ulysses && facts_.heads % (tensor * context) != 0) continue;
      Layout layout = base_;
      layout.ranks = options_.ranks;
      layout.hosts = options_.hosts;
      layout.tensor = tensor;
      layout.context = context;
      if (context > 1) layout.method = method;
      const int64_t rest = options_.ranks / tensor / context;
      for (const int64_t pipeline : divisors_of(rest, facts_.blocks)) {
        layout.pipeline = pipeline;
        for (const int64_t shard : divisors_of(rest / pipeline, rest)) {
          layout.shard = shard;
          layout.replicate = rest / pipeline / shard;
          try_schedules(layout);
        }
      }
    }
  }

  void try_schedules(Layout layout) {
    layout.chunks = 1;
    if (layout.pipeline == 1) return try_batches(layout);
    layout.schedule = PipelineSchedule::one_f_one_b;
    try_batches(layout);
    layout.schedule = PipelineSchedule::interleaved;
    for (const int64_t chunks : {2, 4}) {
      layout.chunks = chunks;
      if (layout.parts() <= facts_.blocks) try_batches(layout);
    }
  }

  void try_batches(Layout layout) {
    const int64_t replicas = layout.shard * layout.replicate;
    if (options_.global_batch % replicas != 0) return;
    const int64_t samples = options_.global_batch / replicas;
    std::optional<Found> best;
    for (const int64_t micro_batch : divisors_of(samples, largest_micro_batch)) {
      layout.micro_batch = micro_batch;
      layout.micro_batches = samples / micro_batch;
      if (layout.pipeline > 1 && layout.micro_batches < layout.pipeline) continue;
      if (layout.pipeline > 1 && layout.schedule == PipelineSchedule::interleaved &&
          layout.micro_batches % layout.pipeline != 0) {
        continue;
      }
      const auto found = try_memory(layout);
      if (!found) continue;
      if (!best || std::tie(found->seconds, found->memory) < std::tie(best->seconds, best->memory))
        best = found;
    }
    if (best) found_.push_back(*best);
  }

  /// The first that fits, from what costs no time to what costs most.
  std::optional<Found> try_memory(Layout layout) {
    for (const bool recompute : {false, true}) {
      layout.recompute = recompute;
      layout.first_blocks = cut(layout);
      for (int64_t zero = layout.shard > 1 ? 1 : 3; zero <= 3; ++zero) {
        layout.zero = layout.shard > 1 ? zero : base_.zero;
        ++result_.considered;
        const Memory memory = peak_memory(facts_, layout);
        if (result_.smallest.total == 0 || memory.total < result_.smallest.total) result_.smallest = memory;
        if (memory.total > options_.memory) continue;
        ++result_.fitting;
        return Found{layout, step_time(facts_, layout, machine_, false).total, memory.total};
      }
    }
    return std::nullopt;
  }

  const std::vector<int>& cut(const Layout& layout) {
    auto& cuts = cuts_[{layout.parts(), layout.recompute}];
    if (cuts.empty()) cuts = cut_blocks(facts_, layout.parts(), layout.recompute);
    return cuts;
  }

  Suggestions finish() {
    const auto faster = [](const Found& a, const Found& b) {
      return std::tie(a.seconds, a.memory) < std::tie(b.seconds, b.memory);
    };
    std::sort(found_.begin(), found_.end(), faster);
    // The formulas' best, weighed again with their schedules carried out.
    for (size_t i = 0; i < std::min(found_.size(), 2 * options_.count); ++i)
      result_.best.push_back(make_forecast(facts_, found_[i].layout, machine_));
    std::stable_sort(result_.best.begin(), result_.best.end(),
                     [](const Forecast& a, const Forecast& b) { return a.time.total < b.time.total; });
    if (result_.best.size() > options_.count) result_.best.resize(options_.count);
    return std::move(result_);
  }

  const ModelFacts& facts_;
  const Layout& base_;
  const MachineFigures& machine_;
  const SuggestOptions& options_;
  Suggestions result_;
  std::vector<Found> found_;
  std::map<std::pair<int64_t, bool>, std::vector<int>> cuts_;
};

}  // namespace

Suggestions suggest_layouts(const ModelFacts& facts, const Layout& base, const MachineFigures& machine,
                            const SuggestOptions& options) {
  return Search(facts, base, machine, options).run();
}

std::vector<std::string> overrides_of(const Layout& base, const Layout& layout) {
  std::vector<std::string> list;
  const auto add = [&](const char* key, int64_t before, int64_t after) {
    if (before != after) list.push_back(fmt::format("{}={}", key, after));
  };
  const auto name = [&](const char* key, const auto& before, const auto& after) {
    if (before != after)
      list.push_back(fmt::format("{}={}", key, names_of(after)[static_cast<size_t>(after)]));
  };
  add("parallel.pipeline", base.pipeline, layout.pipeline);
  add("parallel.shard", base.shard, layout.shard);
  add("parallel.context", base.context, layout.context);
  add("parallel.tensor", base.tensor, layout.tensor);
  if (layout.shard > 1) add("parallel.zero", base.zero, layout.zero);
  if (layout.context > 1) name("parallel.context_method", base.method, layout.method);
  if (layout.pipeline > 1) name("parallel.pipeline_schedule", base.schedule, layout.schedule);
  if (layout.pipeline > 1) add("parallel.pipeline_chunks", base.chunks, layout.chunks);
  add("train.micro_batch", base.micro_batch, layout.micro_batch);
  if (base.recompute != layout.recompute)
    list.push_back(fmt::format("train.recompute={}", layout.recompute ? "blocks" : "none"));
  return list;
}

}  // namespace tessera
