// The tables of pipeline parallelism: complete, free of deadlock, and with the memory and bubble that the
// papers state.
#include "parallel/pipeline_schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "recipes/error.h"

namespace tessera {
namespace {
using testing::HasSubstr;

bool exists(PipelineSchedule kind, const PipelineSizes& sizes) {
  if (kind == PipelineSchedule::one_f_one_b) return sizes.chunks == 1;
  return kind == PipelineSchedule::gpipe || sizes.micro_batches % sizes.stages == 0;
}

std::string describe(PipelineSchedule kind, const PipelineSizes& sizes) {
  return names_of(kind)[static_cast<size_t>(kind)] + " p=" + std::to_string(sizes.stages) +
         " v=" + std::to_string(sizes.chunks) + " m=" + std::to_string(sizes.micro_batches);
}

template <class F>
void for_all_sizes(const F& body) {
  for (int stages = 1; stages <= 8; ++stages) {
    for (int chunks = 1; chunks <= 4; ++chunks) {
      for (int micro_batches = 1; micro_batches <= 16; ++micro_batches) {
        body(PipelineSizes{stages, chunks, micro_batches});
      }
    }
  }
}

template <class F>
void for_all_tables(const F& body) {
  for (const auto kind :
       {PipelineSchedule::one_f_one_b, PipelineSchedule::interleaved, PipelineSchedule::gpipe}) {
    for_all_sizes([&](const PipelineSizes& sizes) {
      if (!exists(kind, sizes)) {
        EXPECT_THROW(make_pipeline_table(kind, sizes), Error) << describe(kind, sizes);
        return;
      }
      SCOPED_TRACE(describe(kind, sizes));
      body(kind, make_pipeline_table(kind, sizes));
    });
  }
}

void expect_each_once(const PipelineTable& table, std::initializer_list<Phase> phases) {
  ASSERT_EQ(static_cast<int>(table.stages.size()), table.sizes.stages);
  for (const auto& actions : table.stages) {
    std::map<std::tuple<Phase, int, int>, int> counts;
    for (const auto& action : actions) ++counts[{action.phase, action.chunk, action.micro_batch}];
    EXPECT_EQ(actions.size(), phases.size() * table.sizes.chunks * table.sizes.micro_batches);
    for (const Phase phase : phases) {
      for (int chunk = 0; chunk < table.sizes.chunks; ++chunk) {
        for (int micro_batch = 0; micro_batch < table.sizes.micro_batches; ++micro_batch) {
          EXPECT_EQ((counts[{phase, chunk, micro_batch}]), 1);
        }
      }
    }
  }
}

TEST(PipelineTable, does_each_forward_and_backward_once_without_deadlock) {
  for_all_tables([](PipelineSchedule, const PipelineTable& table) {
    expect_each_once(table, {Phase::forward, Phase::backward});
    EXPECT_EQ(simulate(table).deadlock, "");
    EXPECT_EQ(simulate(table, {1, 1.5, 0.3}).deadlock, "");
  });
  for_all_sizes([](const PipelineSizes& sizes) {
    expect_each_once(make_forward_table(sizes), {Phase::forward});
    EXPECT_EQ(simulate(make_forward_table(sizes)).deadlock, "");
  });
}

int expected_peak(PipelineSchedule kind, const PipelineSizes& sizes, int stage) {
  const int all = sizes.chunks * sizes.micro_batches;
  if (kind == PipelineSchedule::gpipe) return all;
  const int behind = sizes.stages - stage - 1;
  if (kind == PipelineSchedule::one_f_one_b) return std::min(all, behind + 1);
  // On stage 0 v * p * (1 + (p - 1) / (p * v)): Korthikanti et al. 2022, "Reducing activation recomputation
  // in large transformer models", section 4.2.3.
  return std::min(all, 2 * behind + (sizes.chunks - 1) * sizes.stages + 1);
}

TEST(PipelineTable, keeps_as_many_activations_as_published) {
  for_all_tables([](PipelineSchedule kind, const PipelineTable& table) {
    const auto forecast = simulate(table);
    for (int stage = 0; stage < table.sizes.stages; ++stage) {
      EXPECT_EQ(forecast.peak_live[stage], expected_peak(kind, table.sizes, stage)) << "stage " << stage;
    }
  });
}

TEST(PipelineTable, has_the_published_bubble) {
  for_all_tables([](PipelineSchedule kind, const PipelineTable& table) {
    const auto& sizes = table.sizes;
    // Breadth first, fewer micro-batches than stages leave holes between the chunks.
    if (sizes.chunks > 1 && sizes.micro_batches < sizes.stages) return;
    for (const double backward : {0.5, 1.0, 2.0, 3.0}) {
      const auto forecast = simulate(table, {1, backward});
      const double fill = sizes.stages - 1;
      const double slots = sizes.chunks * sizes.micro_batches + fill;
      EXPECT_DOUBLE_EQ(forecast.makespan, slots * (1 + backward));
      for (const double bubble : forecast.bubble) EXPECT_NEAR(bubble, fill / slots, 1e-12);
    }
  });
}

TEST(PipelineTable, waits_for_messages) {
  const auto table = make_pipeline_table(PipelineSchedule::gpipe, {3, 1, 4});
  EXPECT_DOUBLE_EQ(simulate(table, {1, 2, 0.25}).makespan, (4 + 2) * 3 + 4 * 0.25);
}

TEST(PipelineTable, zero_bubble_has_a_third_of_the_bubble_and_no_more_memory) {
  for (int stages = 1; stages <= 8; ++stages) {
    for (int micro_batches = stages; micro_batches <= 16; ++micro_batches) {
      const PipelineSizes sizes{stages, 1, micro_batches};
      const auto table = make_zero_bubble_table(sizes);
      expect_each_once(table, {Phase::forward, Phase::input_gradient, Phase::weight_gradient});
      const auto forecast = simulate(table);
      EXPECT_EQ(forecast.deadlock, "");
      // (p - 1) * (forward + input gradient - weight gradient): Qi et al. 2023, table 2.
      EXPECT_DOUBLE_EQ(forecast.makespan, 3 * micro_batches + (stages - 1)) << stages << " " << micro_batches;
      for (const int peak : forecast.peak_live) EXPECT_LE(peak, stages);
    }
  }
}

TEST(PipelineTable, tells_which_stage_waits_for_what) {
  auto table = make_pipeline_table(PipelineSchedule::one_f_one_b, {2, 1, 2});
  std::swap(table.stages[0][0], table.stages[0][2]);  // a backward first
  const auto forecast = simulate(table);
  EXPECT_THAT(forecast.deadlock,
              HasSubstr("stage 0 waits for the backward of chunk 0, micro-batch 0 on stage 1"));
  EXPECT_THAT(forecast.deadlock,
              HasSubstr("stage 1 waits for the forward of chunk 0, micro-batch 0 on stage 0"));
  EXPECT_THROW(draw(table), std::logic_error);
}

TEST(PipelineTable, links_carry_messages_in_the_order_of_the_sender) {
  for_all_tables([](PipelineSchedule, const PipelineTable& table) {
    const int stages = table.sizes.stages;
    for (int stage = 0; stage < stages; ++stage) {
      const auto forwards = link_messages(table, (stage + stages - 1) % stages, stage, Phase::forward);
      const auto backwards = link_messages(table, (stage + 1) % stages, stage, Phase::backward);
      size_t num_forwards = 0;
      size_t num_backwards = 0;
      // These schedules take them in that order too: nothing is received long before it is needed.
      for (const auto& action : table.stages[stage]) {
        if (!input_of(table, stage, action)) continue;
        const bool forward = action.phase == Phase::forward;
        const auto& list = forward ? forwards : backwards;
        size_t& count = forward ? num_forwards : num_backwards;
        ASSERT_LT(count, list.size());
        EXPECT_EQ(list[count], action);
        ++count;
      }
      EXPECT_EQ(num_forwards, forwards.size());
      EXPECT_EQ(num_backwards, backwards.size());
    }
  });
}

std::string message_of(PipelineSchedule kind, const PipelineSizes& sizes) {
  try {
    make_pipeline_table(kind, sizes);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(PipelineTable, errors_name_what_is_valid) {
  const auto interleaved = PipelineSchedule::interleaved;
  EXPECT_EQ(
      message_of(interleaved, {4, 2, 7}),
      "interleaved: 7 micro-batches are not a multiple of 4 stages; valid: 4, 8, 12, …; the nearest: 8");
  EXPECT_THAT(message_of(interleaved, {4, 2, 5}), HasSubstr("the nearest: 4"));
  EXPECT_THAT(message_of(interleaved, {4, 2, 1}), HasSubstr("the nearest: 4"));
  EXPECT_EQ(message_of(PipelineSchedule::one_f_one_b, {4, 2, 8}),
            "1f1b has 1 chunk per stage, not 2; several: interleaved");
  EXPECT_EQ(message_of(interleaved, {4, 0, 8}), "a pipeline of 0 chunks per stage; valid: at least 1");
  EXPECT_EQ(message_of(PipelineSchedule::gpipe, {0, 1, 8}), "a pipeline of 0 stages; valid: at least 1");
}

TEST(PipelineDrawing, one_f_one_b) {
  EXPECT_EQ(draw(make_pipeline_table(PipelineSchedule::one_f_one_b, {3, 1, 4})),
            "stage 0 | F0 F1 F2 .  .  B0 F3 B1 .  B2 .  B3\n"
            "stage 1 | .  F0 F1 .  B0 F2 B1 F3 B2 .  B3 .\n"
            "stage 2 | .  .  F0 B0 F1 B1 F2 B2 F3 B3 .  .\n");
}

TEST(PipelineDrawing, interleaved) {
  EXPECT_EQ(draw(make_pipeline_table(PipelineSchedule::interleaved, {2, 2, 4})),
            "stage 0 | F0a F1a F0b F1b F2a B0b F3a B1b F2b B0a F3b B1a .   B2b .   B3b B2a B3a\n"
            "stage 1 | .   F0a F1a F0b B0b F1b B1b F2a B0a F3a B1a F2b B2b F3b B3b B2a B3a .\n");
}

TEST(PipelineDrawing, gpipe) {
  EXPECT_EQ(draw(make_pipeline_table(PipelineSchedule::gpipe, {3, 1, 3})),
            "stage 0 | F0 F1 F2 .  .  .  .  B0 B1 B2\n"
            "stage 1 | .  F0 F1 F2 .  .  B0 B1 B2 .\n"
            "stage 2 | .  .  F0 F1 F2 B0 B1 B2 .  .\n");
}

TEST(PipelineDrawing, zero_bubble_and_forward_only) {
  EXPECT_EQ(draw(make_zero_bubble_table({3, 1, 4})),
            "stage 0 | F0 F1 F2 .  .  I0 W0 F3 I1 W1 I2 W2 I3 W3\n"
            "stage 1 | .  F0 F1 .  I0 F2 I1 W0 F3 I2 W1 I3 W2 W3\n"
            "stage 2 | .  .  F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3\n");
  EXPECT_EQ(draw(make_forward_table({2, 2, 3})),
            "stage 0 | F0a F1a F2a F0b F1b F2b .\n"
            "stage 1 | .   F0a F1a F2a F0b F1b F2b\n");
}
}  // namespace
}  // namespace tessera
