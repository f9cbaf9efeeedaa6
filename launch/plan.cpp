#include "launch/plan.h"

#include <algorithm>

#include "parallel/pipeline_schedule.h"

namespace tessera {
namespace {

int64_t divide_up(int64_t number, int64_t by) { return (number + by - 1) / by; }

}  // namespace

int64_t Layout::size(Axis axis) const {
  const int64_t sizes[] = {pipeline, replicate, shard, context, tensor};
  return sizes[static_cast<size_t>(axis)];
}

Layout recipe_layout(const Recipe& recipe) {
  const auto& sizes = recipe.parallel;
  Layout layout;
  layout.pipeline = sizes.pipeline;
  layout.shard = sizes.shard;
  layout.context = sizes.context;
  layout.tensor = sizes.tensor;
  layout.zero = sizes.zero;
  layout.prefetch = sizes.prefetch;
  layout.micro_batch = recipe.train.micro_batch;
  layout.micro_batches = recipe.train.global_batch / recipe.train.micro_batch;
  layout.recompute = recipe.train.recompute == Recompute::blocks;
  layout.method = sizes.context_method;
  layout.schedule = sizes.pipeline_schedule;
  layout.chunks = sizes.pipeline > 1 ? sizes.pipeline_chunks : 1;
  layout.working = recipe.train.precision == Precision::fp32 ? 4 : 2;
  layout.reduced = sizes.reduce_precision == ReducePrecision::working ? layout.working : 4;
  layout.bucket_bytes = static_cast<int64_t>(sizes.bucket_megabytes * 1048576);
  layout.average = recipe.train.ema > 0;
  layout.offload = sizes.offload;
  return layout;
}

Layout make_layout(const Recipe& recipe, const ModelFacts& facts, int64_t ranks, int64_t hosts) {
  const auto& sizes = recipe.parallel;
  Layout layout = recipe_layout(recipe);
  layout.ranks = ranks;
  layout.hosts = hosts;
  layout.replicate = ranks / (sizes.shard * ranks_per_sample(sizes));
  layout.micro_batches = batch_arithmetic(recipe, static_cast<int>(ranks)).accumulation;
  layout.first_blocks = first_blocks_of(recipe, facts);
  return layout;
}

Stage stage_of(const ModelFacts& facts, const Layout& layout, int64_t index) {
  Stage stage;
  stage.index = index;
  stage.first = index == 0;
  stage.last = index + 1 == layout.pipeline;
  stage.live = peak_live(layout, index);
  const auto& first = layout.first_blocks;
  for (auto part = static_cast<size_t>(index); part < first.size();
       part += static_cast<size_t>(layout.pipeline)) {
    const int64_t end = part + 1 < first.size() ? first[part + 1] : facts.blocks;
    stage.blocks += end - first[part];
    stage.learning += std::max<int64_t>(0, end - std::max<int64_t>(first[part], facts.trained.first_block));
    for (int64_t i = first[part]; i < end; ++i) stage.trained += facts.trained.blocks[static_cast<size_t>(i)];
  }
  return stage;
}

int64_t peak_live(const Layout& layout, int64_t stage) {
  const int64_t stages = layout.pipeline, all = layout.micro_batches * layout.chunks;
  if (stages == 1) return 1;
  if (layout.schedule == PipelineSchedule::gpipe) return all;
  if (layout.schedule == PipelineSchedule::one_f_one_b) return std::min(all, stages - stage);
  return std::min(all, 2 * (stages - stage - 1) + (layout.chunks - 1) * stages + 1);
}

ParameterSum& ParameterSum::operator+=(const ParameterSum& other) {
  elements += other.elements;
  part += other.part;
  unsplit += other.unsplit;
  count += other.count;
  return *this;
}

ParameterSum sum_of(const std::vector<ParameterFacts>& parameters, const Layout& layout) {
  ParameterSum sum;
  for (const ParameterFacts& each : parameters) {
    const int64_t rows = each.split == 0 ? divide_up(each.rows, layout.tensor) : each.rows;
    const int64_t width = each.split == 1 ? divide_up(each.width, layout.tensor) : each.width;
    const int64_t part = divide_up(rows, layout.shard) * width;
    sum += {rows * width, part, each.split < 0 ? part : 0, 1};
  }
  return sum;
}

ParameterSum outer_sum(const ModelFacts& facts, const Layout& layout, const Stage& stage) {
  ParameterSum sum;
  if (stage.first || stage.last) sum += sum_of({facts.tokens}, layout);
  if (stage.first) sum += sum_of(facts.embeddings, layout);
  if (stage.last) sum += sum_of(facts.head, layout);
  return sum;
}

double outer_trained(const ModelFacts& facts, const Layout& layout, const Stage& stage) {
  const auto part = [&](const std::vector<ParameterFacts>& list, double share) {
    return share * static_cast<double>(sum_of(list, layout).part);
  };
  double sum = 0;
  if (stage.first || stage.last) sum += part({facts.tokens}, facts.trained.tokens);
  if (stage.first) sum += part(facts.embeddings, facts.trained.embeddings);
  if (stage.last) sum += part(facts.head, facts.trained.head);
  return sum;
}

double trained_share(const ModelFacts& facts, const Layout& layout, const Stage& stage) {
  const auto block = static_cast<double>(sum_of(facts.block, layout).part);
  const double all =
      static_cast<double>(outer_sum(facts, layout, stage).part) + static_cast<double>(stage.blocks) * block;
  return all > 0 ? (outer_trained(facts, layout, stage) + stage.trained * block) / all : 0;
}

RowCounts count_rows(const ModelFacts& facts, const Layout& layout) {
  const int64_t pieces = layout.tensor * layout.context * (layout.zigzag(facts) ? 2 : 1);
  const int64_t columns = divide_up(facts.sequence, pieces) * pieces;  // batches are filled up to this
  const int64_t inside = layout.micro_batch * (columns / layout.context);
  RowCounts rows;
  rows.inside = static_cast<double>(inside);
  rows.own = rows.inside / static_cast<double>(layout.tensor);
  rows.predicted = rows.inside * facts.predicted;
  return rows;
}

Forecast make_forecast(const ModelFacts& facts, const Layout& layout, const MachineFigures& machine) {
  Forecast plan{layout, peak_memory(facts, layout), step_time(facts, layout, machine, true), {}, 0};
  double most = -1;
  for (int64_t index = 0; index < layout.pipeline; ++index) {
    auto flows = step_traffic(facts, layout, stage_of(facts, layout, index));
    double sent = 0;
    for (const Flow& flow : flows) sent += flow.times * flow.sent();
    if (sent <= most) continue;
    most = sent;
    plan.traffic = std::move(flows);
    plan.traffic_stage = index;
  }
  return plan;
}

}  // namespace tessera
