// Memory, messages and seconds of layouts, against figures worked out by hand.
#include "launch/plan.h"

#include <gtest/gtest.h>

#include <chrono>
#include <map>

#include "launch/shipped_recipes.h"
#include "launch/suggest.h"
#include "parallel/pipeline_schedule.h"
#include "trainer/catalog.h"
#include "trainer/models/models.h"
#include "trainer/pipeline_parts.h"

namespace tessera {
namespace {

// Four blocks of 256 with 4 heads, 128 positions: 12 h^2 + 13 h parameters in a block.
constexpr int64_t block_parameters = 789'760, hidden = 256, vocabulary = 1000;
constexpr int64_t other_parameters = (vocabulary + 128) * hidden + 2 * hidden;  // tables and the last norm
constexpr int64_t all_parameters = 4 * block_parameters + other_parameters;

struct Planned {
  ModelFacts facts;
  Layout layout;
};

Planned plan_mini(const std::vector<std::string>& overrides, int ranks, int hosts = 1) {
  std::vector<std::string> all{"train.global_batch=64", "train.micro_batch=8", "train.device=cpu"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  const Recipe recipe = read_recipe(find_shipped_recipe("gpt/pretrain-mini"), all, catalog());
  check_ranks(recipe, ranks);
  const ModelFacts facts = look_at_model(recipe, vocabulary);
  return {facts, make_layout(recipe, facts, ranks, hosts)};
}

Memory memory_of(const Planned& planned, int64_t stage = 0) {
  return stage_memory(planned.facts, planned.layout, stage_of(planned.facts, planned.layout, stage));
}

std::map<std::string, Flow> flows_of(const Planned& planned, int64_t stage = 0) {
  std::map<std::string, Flow> flows;
  for (const Flow& flow :
       step_traffic(planned.facts, planned.layout, stage_of(planned.facts, planned.layout, stage))) {
    flows.emplace(std::string(flow.axis) + " " + flow.what, flow);
  }
  return flows;
}

TEST(PlanMemory, OfOneRank) {
  const Planned planned = plan_mini({"train.global_batch=8"}, 1);
  const Memory memory = memory_of(planned);
  EXPECT_EQ(planned.facts.total, all_parameters);
  EXPECT_EQ(memory.parameters, all_parameters);
  EXPECT_EQ(memory.weights, 4 * all_parameters);
  EXPECT_EQ(memory.gradients, 4 * all_parameters);
  EXPECT_EQ(memory.optimizer, 8 * all_parameters);
  EXPECT_EQ(memory.working + memory.gathered + memory.average, 0);
  // 1024 rows: 6 hidden states and two norms' 16 bytes; joined projections, output and both ends of the
  // activation function; 4 log-sums.
  const int64_t block = 1024 * (4 * 6 * 256 + 16 + 4 * (4 * 256 + 2 * 1024) + 4 * 4);
  EXPECT_EQ(block_activations(planned.facts, planned.layout), block);
  const int64_t states = 1024 * 256 * 4;
  EXPECT_EQ(memory.activations, 4 * block + 2 * states + 8 * 1024);
  EXPECT_EQ(memory.logits, 4 * 1024 * vocabulary);
  EXPECT_EQ(memory.total,
            memory.weights + memory.optimizer + memory.activations + memory.logits + memory.temporary);
}

TEST(PlanMemory, OfHalfPrecisionWithRecomputation) {
  const Planned planned = plan_mini({"train.precision=bf16", "train.recompute=blocks", "train.ema=0.9"}, 1);
  const Memory memory = memory_of(planned);
  EXPECT_EQ(memory.working, 2 * all_parameters);
  EXPECT_EQ(memory.gradients, 4 * all_parameters);  // eight micro-steps, summed in fp32
  EXPECT_EQ(memory.average, 4 * all_parameters);
  const int64_t states = 1024 * 256 * 2;
  EXPECT_EQ(memory.activations, 4 * states + 2 * states + 8 * 1024);
}

TEST(PlanMemory, OfShards) {
  // 4 ranks divide all rows of this model evenly.
  const auto of = [](int zero) {
    return memory_of(plan_mini({"parallel.shard=4", "parallel.zero=" + std::to_string(zero)}, 4));
  };
  for (const int zero : {1, 2, 3}) {
    EXPECT_EQ(of(zero).weights, all_parameters) << zero;
    EXPECT_EQ(of(zero).optimizer, 2 * all_parameters) << zero;
  }
  EXPECT_EQ(of(2).gathered, 4 * all_parameters);
  EXPECT_EQ(of(3).gathered, 4 * (other_parameters + 2 * block_parameters));
  EXPECT_EQ(of(1).gradients, all_parameters + 4 * all_parameters + 5 * block_parameters);
  EXPECT_EQ(of(2).gradients, all_parameters + 4 * block_parameters + 9 * block_parameters);
  // Rows that 3 ranks do not divide are filled up: 1000 to 1002, 128 to 129, 256 to 258 and 1024 to 1026.
  const Memory uneven = memory_of(plan_mini({"parallel.shard=3", "train.global_batch=48"}, 3));
  const int64_t block = 4 * 86 * 256 + 342 * 256 + 86 * 1024 + 9 * 86 + 342;
  EXPECT_EQ(uneven.parameters, 4 * block + (334 + 43) * 256 + 2 * 86);
}

TEST(PlanMemory, OfDividedLayersAndSequences) {
  const auto block = [](const std::vector<std::string>& overrides, int ranks) {
    const Planned planned = plan_mini(overrides, ranks);
    return block_activations(planned.facts, planned.layout);
  };
  const double whole = block({}, 1);
  EXPECT_EQ(block({"parallel.tensor=4"}, 4), whole / 4);
  const int64_t one = 512 * 256 * 4;  // queries of half a sequence
  EXPECT_EQ(block({"parallel.context=2"}, 2), whole / 2 + 3 * one);
  EXPECT_EQ(block({"parallel.context=2", "parallel.context_method=ulysses"}, 2), whole / 2 + one);
  EXPECT_EQ(block({"model.attention_dropout=0.1"}, 1), whole + 2 * one + 2 * 4 * 8 * 4 * 128 * 128);
  const Memory split = memory_of(plan_mini({"parallel.tensor=4"}, 4));
  // Norms, biases of sums and positions stay whole.
  EXPECT_EQ(split.parameters, all_parameters / 4 + (128 + 2 + 4 * 6) * hidden * 3 / 4);
}

TEST(PlanMemory, OfFrozenParameters) {
  const int64_t trained = 2 * block_parameters + 2 * hidden, kept = 1024 * 256 * 4;
  const std::string last = "adapt={method: freeze, last_blocks: 2}";
  const Planned planned = plan_mini({"train.global_batch=8", last}, 1);
  const Memory memory = memory_of(planned);
  EXPECT_EQ(memory.weights, 4 * all_parameters);
  EXPECT_EQ(memory.parameters, trained);
  EXPECT_EQ(memory.gradients, 4 * trained);
  EXPECT_EQ(memory.optimizer, 8 * trained);
  const double block = block_activations(planned.facts, planned.layout);
  EXPECT_EQ(memory.activations,
            2 * block + 2 * kept);  // the blocks' and the last norm's; embeddings keep nothing
  // What learns has masters beside its 16-bit copies, and a moving average.
  const Memory half = memory_of(plan_mini({last, "train.precision=bf16", "train.ema=0.9"}, 1));
  EXPECT_EQ(half.weights, 4 * trained);
  EXPECT_EQ(half.working, 2 * all_parameters);
  EXPECT_EQ(half.average, 4 * trained);
  // Of several stages in time, that which trains most counts.
  const std::string more =
      "adapt={method: freeze, train: [norm], stages: [{step: 5, last_blocks: 2}, {step: 9, "
      "last_blocks: 1}]}";
  EXPECT_EQ(memory_of(plan_mini({more}, 1)).optimizer, 8 * trained);
  // A stage where nothing learns keeps nothing.
  const Planned stages = plan_mini({last, "parallel.pipeline=2"}, 2);
  const Memory first = memory_of(stages, 0);
  EXPECT_EQ(first.gradients + first.optimizer, 0);
  EXPECT_EQ(memory_of(stages, 1).optimizer, 8 * trained);
}

TEST(PlanTraffic, OfFrozenParameters) {
  const auto sent = [](const std::string& adapt, const std::string& flow) {
    const auto flows = flows_of(plan_mini({"adapt=" + adapt}, 2));
    return flows.at(flow).times * flows.at(flow).bytes;
  };
  const int64_t trained = block_parameters + 2 * hidden;
  EXPECT_EQ(sent("{method: full}", "replicate gradients"), 4 * all_parameters);
  EXPECT_EQ(sent("{method: freeze, last_blocks: 1}", "replicate gradients"), 4 * trained);
}

TEST(PlanMemory, OfAPipeline) {
  const Planned planned = plan_mini({"parallel.pipeline=2", "parallel.pipeline_split=[3]"}, 2);
  const Memory first = memory_of(planned, 0), last = memory_of(planned, 1);
  EXPECT_EQ(first.parameters, 3 * block_parameters + (vocabulary + 128) * hidden);
  EXPECT_EQ(last.parameters, block_parameters + vocabulary * hidden + 2 * hidden);
  const double block = block_activations(planned.facts, planned.layout);
  const int64_t states = 1024 * 256 * 4;
  EXPECT_EQ(first.activations, 2 * (3 * block + states + 8 * 1024) + states);  // a gradient comes
  EXPECT_EQ(last.activations, block + 2 * states + 2 * states);  // an input comes, a gradient goes
  EXPECT_EQ(peak_memory(planned.facts, planned.layout).stage, 0);
}

TEST(PlanTraffic, OfReplicas) {
  const auto flows = flows_of(plan_mini({}, 4));
  const Flow& gradients = flows.at("replicate gradients");
  EXPECT_EQ(gradients.times, 1);  // all within 25 MiB
  EXPECT_EQ(gradients.bytes, 4 * all_parameters);
  EXPECT_EQ(gradients.sent(), 1.5 * 4 * all_parameters);
  const Flow& counts = flows.at("all counts of predictions");
  EXPECT_EQ(counts.sent(), 2 * 4 * 8);  // doubling
}

TEST(PlanTraffic, OfShards) {
  auto flows = flows_of(plan_mini({"parallel.shard=4"}, 4));  // two micro-steps
  EXPECT_EQ(flows.at("shard blocks gathered").times, 2 * 7);
  EXPECT_EQ(flows.at("shard blocks gathered").sent(), 3 * block_parameters);
  EXPECT_EQ(flows.at("shard others gathered").times, 1);
  EXPECT_EQ(flows.at("shard gradients of blocks").times, 2 * 4);
  flows = flows_of(plan_mini({"parallel.shard=4", "parallel.zero=1"}, 4));
  EXPECT_EQ(flows.at("shard blocks gathered").times, 4);
  EXPECT_EQ(flows.at("shard gradients of blocks").times, 4);
  flows = flows_of(plan_mini({"parallel.shard=2", "parallel.zero=2"}, 4));
  EXPECT_EQ(flows.at("replicate parts of gradients: blocks").bytes, 4 * block_parameters / 2);
}

TEST(PlanTraffic, OfDividedLayers) {
  const auto flows =
      flows_of(plan_mini({"parallel.tensor=4", "train.recompute=blocks"}, 4));  // 8 micro-steps
  const int64_t rows = 4 * 1024 * 256;
  EXPECT_EQ(flows.at("tensor blocks: gathers").times, 8 * 4 * 8);
  EXPECT_EQ(flows.at("tensor blocks: sums").times, 8 * 4 * 6);
  EXPECT_EQ(flows.at("tensor blocks: gathers").sent(), rows * 3 / 4);
  EXPECT_EQ(flows.at("tensor embedding: sum").times + flows.at("tensor embedding: gradient").times, 16);
  EXPECT_EQ(flows.at("tensor head: rows").bytes, rows);
  EXPECT_EQ(flows.at("tensor softmax: sums").sent(), 2 * 12 * 1024);  // doubling
  EXPECT_EQ(flows.at("tensor gradients of undivided parameters").bytes, 4 * (128 + 2 + 4 * 6) * hidden);
}

TEST(PlanTraffic, OfDividedSequences) {
  auto flows = flows_of(plan_mini({"parallel.context=4"}, 4));
  const int64_t one = 4 * 256 * 256;  // queries of a quarter
  EXPECT_EQ(flows.at("context keys and values to the next").times, 8 * 4 * 2 * 3);
  EXPECT_EQ(flows.at("context keys and values to the next").sent(), 2 * one);
  EXPECT_EQ(flows.at("context their gradients to the next").times, 8 * 4 * 4);
  EXPECT_EQ(flows.at("context their gradients arrive").sent(), 0);
  EXPECT_EQ(flows.at("replicate gradients").ranks, 4);
  flows = flows_of(plan_mini({"parallel.context=4", "parallel.context_method=ulysses"}, 4));
  EXPECT_EQ(flows.at("context queries, keys, values to heads").times, 8 * 4 * 2);
  EXPECT_EQ(flows.at("context queries, keys, values to heads").sent(), 3 * one * 3 / 4);
}

TEST(PlanTraffic, OfAPipeline) {
  const Planned planned = plan_mini(
      {"parallel.pipeline=2", "parallel.pipeline_chunks=2", "parallel.pipeline_schedule=interleaved"}, 2);
  const auto first = flows_of(planned, 0), last = flows_of(planned, 1);
  EXPECT_EQ(first.at("pipeline activations to the next").times, 16);
  EXPECT_EQ(last.at("pipeline activations to the next").times, 8);  // back to the first stage's second chunk
  EXPECT_EQ(first.at("pipeline gradients to the one before").times, 8);
  EXPECT_EQ(first.at("pipeline activations to the next").sent(), 4 * 1024 * 256);
  EXPECT_EQ(first.at("pipeline table of tokens: gradient").sent(), 4 * vocabulary * hidden);
}

TEST(PlanTraffic, KnowsWhoSharesAHost) {
  // 8 hosts of 2: tensor stays inside, the others do not.
  const auto flows = flows_of(plan_mini({"parallel.tensor=2", "parallel.shard=2", "parallel.zero=2"}, 16, 8));
  EXPECT_EQ(flows.at("tensor blocks: gathers").per_host, 2);
  EXPECT_EQ(flows.at("shard blocks gathered").per_host, 1);
  EXPECT_EQ(flows.at("replicate parts of gradients: blocks").per_host, 1);
}

TEST(PlanPipeline, IsCutWhereTheRunCuts) {
  const std::vector<std::vector<std::string>> changes = {
      {}, {"train.recompute=blocks"}, {"data.sequence_length=64"}, {"model.vocab_size=60000"}};
  for (const char* name :
       {"bert/pretrain-base", "bert/pretrain-large", "gpt/pretrain-124m", "gpt/pretrain-1.5b"}) {
    for (const auto& change : changes) {
      for (const int parts : {2, 3, 4, 8}) {
        for (const int chunks : {1, 2}) {
          if (parts % chunks != 0) continue;
          std::vector<std::string> overrides{"parallel.pipeline=" + std::to_string(parts / chunks),
                                             "parallel.pipeline_chunks=" + std::to_string(chunks),
                                             "parallel.pipeline_schedule=gpipe"};
          if (parts == chunks) continue;
          overrides.insert(overrides.end(), change.begin(), change.end());
          const Recipe recipe = read_recipe(find_shipped_recipe(name), overrides, catalog());
          const ModelFacts facts = look_at_model(recipe, 0);
          const ModelPtr model =
              make_model(recipe.model, {facts.vocab_size, {.next_sentence = facts.pair_head}});
          std::vector<int> run;
          for (const ModelRange& range : cut_model(*model, recipe).ranges)
            run.push_back(static_cast<int>(range.first));
          EXPECT_EQ(make_layout(recipe, facts, parts / chunks, 1).first_blocks, run)
              << name << " " << join(overrides, " ");
          EXPECT_EQ(static_cast<int>(run.size()), parts);
        }
      }
    }
  }
}

TEST(PlanPipeline, IsCutByWhatBlocksAndHeadCost) {
  // A head of 8 blocks' products; blocks that are computed again weigh a third more.
  ModelShape shape{.blocks = 12, .hidden = 64, .feed_forward = 256, .sequence = 0};
  shape.vocab_size = 8 * static_cast<int64_t>(block_flops(shape)) / (2 * 64);
  EXPECT_EQ(head_flops(shape), 8 * block_flops(shape));
  EXPECT_EQ(cut_blocks(shape, 2, false), (std::vector<int>{0, 10}));
  EXPECT_EQ(cut_blocks(shape, 2, true), (std::vector<int>{0, 9}));
  // Scores of as many products again make blocks twice as dear; of a causal mask, half of them count.
  shape.sequence = static_cast<int64_t>(block_flops(shape)) / (4 * 64);
  EXPECT_EQ(cut_blocks(shape, 2, false), (std::vector<int>{0, 8}));
  EXPECT_EQ(head_flops(shape), 4 * block_flops(shape));
  shape.predicted = 0;
  EXPECT_EQ(cut_blocks(shape, 2, false), (std::vector<int>{0, 6}));
}

TEST(PlanTime, AgreesWithTheSimulation) {
  for (const PipelineSchedule schedule :
       {PipelineSchedule::one_f_one_b, PipelineSchedule::interleaved, PipelineSchedule::gpipe}) {
    for (const int stages : {2, 3, 4, 8}) {
      for (const int chunks : {1, 2, 3}) {
        if (schedule == PipelineSchedule::one_f_one_b && chunks > 1) continue;
        for (const int groups : {1, 2, 4}) {
          Layout layout;
          layout.pipeline = stages;
          layout.chunks = chunks;
          layout.micro_batches = groups * stages;
          layout.schedule = schedule;
          const PipelineSizes sizes{stages, chunks, groups * stages};
          const auto forecast = simulate(make_pipeline_table(schedule, sizes));
          for (int stage = 0; stage < stages; ++stage)
            EXPECT_EQ(peak_live(layout, stage), forecast.peak_live[stage])
                << stages << chunks << groups << stage;
          EXPECT_NEAR(forecast.makespan, 3.0 * (chunks * groups * stages + stages - 1), 1e-9);
        }
      }
    }
  }
}

/// 1e9 of everything per second, all of which hides.
MachineFigures machine_of_ones(const LinkFigures& inside, const LinkFigures& between) {
  return {.source = "test",
          .flops_fp32 = 1e9,
          .flops_16_bit = 1e9,
          .memory = 1e9,
          .memory_bandwidth = 1e9,
          .block_overhead = 0,
          .overlap = 1,
          .inside = inside,
          .between = between};
}

TEST(PlanTime, AddsUp) {
  const Planned planned = plan_mini({"parallel.pipeline=2", "parallel.tensor=2", "parallel.shard=2"}, 16, 4);
  MachineFigures machine = machine_of_ones({1e-6, 1e9}, {1e-5, 1e8});
  const StepTime time = step_time(planned.facts, planned.layout, machine, true);
  EXPECT_NEAR(time.total,
              time.compute + time.tensor + time.context + time.bubble + time.shard + time.replicate +
                  time.optimizer + time.agreement,
              1e-9);
  // Two blocks' products and half a triangle of scores on half of each layer, or the head beside them.
  const double block = 8.0 * 256 * 256 + 4.0 * 256 * 1024 + 2.0 * 256 * 128;
  EXPECT_EQ(block_flops(planned.facts), block);
  const double products = 3 * 1024 * (2 * block + 2.0 * 256 * vocabulary) / 2;
  // Residual sums of half of the rows, the activation function and the loss on half of the columns.
  const double passed = 4 * 512 * (2.0 * 18 * 256 + 2 * 5 * 1024 + 3 * vocabulary);
  EXPECT_NEAR(time.compute, 2 * (products + passed) / 1e9, 1e-9);
  EXPECT_GT(time.bubble, 0);
  EXPECT_GT(time.tensor, 0);
  machine.inside.bandwidth = machine.between.bandwidth = 1e15;
  machine.inside.latency = machine.between.latency = 1e-12;
  EXPECT_LT(step_time(planned.facts, planned.layout, machine, true).tensor, 1e-6);
}

TEST(PlanTime, MessagesHideAsFarAsTheMachineLetsThem) {
  const Planned planned = plan_mini({}, 4);
  MachineFigures machine = machine_of_ones({1e-9, 1e9}, {1e-9, 1e9});
  const auto exposed = [&](double overlap) {
    machine.overlap = overlap;
    return step_time(planned.facts, planned.layout, machine, true).replicate;
  };
  const double sum = 1.5 * 4 * all_parameters / 1e9;  // far shorter than backward
  EXPECT_NEAR(exposed(0.25) - exposed(1), 0.75 * sum, 1e-6);
  EXPECT_LT(exposed(1), 0.01 * sum);
}

TEST(Suggest, FindsLayoutsThatFitAndValidate) {
  for (const char* name : {"gpt/pretrain-1.5b", "bert/pretrain-large"}) {
    const std::string path = find_shipped_recipe(name);
    for (const int ranks : {8, 64, 4096}) {
      const std::vector<std::string> given{"train.global_batch=4096"};
      const Recipe recipe = read_recipe(path, given, catalog());
      const ModelFacts facts = look_at_model(recipe, 0);
      const MachineFigures machine = usual_machine(recipe, 8);
      const Layout base = recipe_layout(recipe);
      const auto start = std::chrono::steady_clock::now();
      const Suggestions found = suggest_layouts(facts, base, machine, {ranks, ranks / 8, 4096, 80e9});
      EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
      ASSERT_GE(found.best.size(), 5) << name << ranks;
      for (const Forecast& forecast : found.best) {
        EXPECT_LE(forecast.memory.total, 80e9);
        std::vector<std::string> overrides = given;
        for (const auto& each : overrides_of(base, forecast.layout)) overrides.push_back(each);
        const Recipe changed = read_recipe(path, overrides, catalog());
        EXPECT_NO_THROW(check_ranks(changed, ranks));
        const Forecast again = make_forecast(facts, make_layout(changed, facts, ranks, ranks / 8), machine);
        EXPECT_EQ(again.time.total, forecast.time.total) << join(overrides, " ");
        EXPECT_EQ(again.memory.total, forecast.memory.total) << join(overrides, " ");
      }
    }
  }
}

}  // namespace
}  // namespace tessera
