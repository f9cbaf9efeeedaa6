// The pipeline over messages that go as NCCL's do, with more stages than tests under mpirun can have: no
// order of posting may deadlock, or keep stages from computing side by side.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <thread>

#include "parallel/pipeline.h"
#include "tests/parallel/ordered_transport.h"

namespace tessera {
namespace {
/// Calls body(communicator) on as many threads as there are ranks.
template <class F>
void on_ranks(int num_ranks, const F& body, OrderedJob::Options options = {}) {
  OrderedJob job(num_ranks, options);
  for (const auto& error : errors_of_ranks(job, body)) ADD_FAILURE() << error;
}

/// Part i multiplies by a weight of its own; micro-batch k is k + 1; the loss is the sum.
void expect_products(const Communicator& axis, const PipelineTable& table) {
  const int num_parts = table.sizes.parts();
  const int micro_batches = table.sizes.micro_batches;
  const auto part_of = [&](int chunk) { return chunk * axis.size() + axis.rank(); };
  std::vector<at::Tensor> weights;
  double product = 1;
  for (int part = 0; part < num_parts; ++part) {
    const double value = 1 + 0.1 * (part % 3);
    weights.push_back(torch::full({}, value, torch::kDouble).set_requires_grad(true));
    product *= value;
  }
  Pipeline pipeline(axis, {torch::kDouble});
  const auto forward = [&](int chunk, int micro_batch, const at::Tensor& input) {
    const at::Tensor hidden = input.defined() ? input : torch::full({2}, micro_batch + 1.0, torch::kDouble);
    const at::Tensor output = hidden * weights[part_of(chunk)];
    return part_of(chunk) + 1 == num_parts ? output.sum() : output;
  };
  const auto losses = pipeline.run(table, {2}, {forward, {}});
  for (size_t i = 0; i < losses.size(); ++i) {
    EXPECT_NEAR(losses[i].item<double>(), 2 * (static_cast<double>(i) + 1) * product, 1e-9);
  }
  const double sum = micro_batches * (micro_batches + 1);  // of both elements of all micro-batches
  for (int chunk = 0; chunk < table.sizes.chunks; ++chunk) {
    const at::Tensor& weight = weights[part_of(chunk)];
    EXPECT_NEAR(weight.grad().item<double>() * weight.item<double>(), sum * product, 1e-8 * sum * product);
  }
}

TEST(PipelineOrder, never_deadlocks_where_messages_go_one_after_the_other) {
  for (int stages = 1; stages <= 8; ++stages) {
    for (const int m : {1, 2, 3}) {
      const std::vector<PipelineTable> tables{
          make_pipeline_table(PipelineSchedule::one_f_one_b, {stages, 1, m * stages - (m > 1)}),
          make_pipeline_table(PipelineSchedule::gpipe, {stages, 2, m * stages - (m > 1)}),
          make_pipeline_table(PipelineSchedule::interleaved, {stages, 2, m * stages}),
          make_pipeline_table(PipelineSchedule::interleaved, {stages, 3, m * stages})};
      for (const PipelineTable& table : tables) {
        for (const bool connects : {false, true}) {
          SCOPED_TRACE(std::to_string(stages) + " stages, " + std::to_string(table.sizes.chunks) + " chunks");
          on_ranks(stages, [&](const Communicator& axis) { expect_products(axis, table); },
                   {.connects = connects});
        }
      }
    }
  }
}

// Where a rank's channels share one order, as NCCL's splitShare has it: a stage that receives ahead never
// sends.
TEST(PipelineOrder, deadlocks_where_channels_share_an_order) {
  for (int stages = 2; stages <= 4; ++stages) {
    for (const int micro_batches : {2, 2 * stages}) {
      const PipelineTable table =
          make_pipeline_table(PipelineSchedule::one_f_one_b, {stages, 1, micro_batches});
      OrderedJob job(stages, {.order = ChannelOrder::shared});
      const auto errors =
          errors_of_ranks(job, [&](const Communicator& axis) { expect_products(axis, table); });
      EXPECT_EQ(errors.size(), static_cast<size_t>(stages)) << stages << " stages";
      for (const auto& error : errors) EXPECT_NE(error.find("deadlock"), std::string::npos) << error;
    }
  }
}

// A stage that takes messages in another order than the one before it makes them: here it does the second
// micro-batch first.
TEST(PipelineOrder, receives_in_the_order_of_the_sender) {
  PipelineTable table = make_pipeline_table(PipelineSchedule::gpipe, {3, 1, 4});
  std::swap(table.stages[1][0], table.stages[1][1]);
  std::swap(table.stages[2][4], table.stages[2][7]);
  on_ranks(3, [&](const Communicator& axis) { expect_products(axis, table); });
}

// The bubble of each stage with forwards of 6 ms.
std::vector<double> slow_bubbles(const PipelineTable& table) {
  const int stages = table.sizes.stages;
  std::vector<PipelineSeconds> seconds(stages);
  on_ranks(stages, [&](const Communicator& axis) {
    const at::Tensor weight = torch::ones({}).set_requires_grad(true);
    Pipeline pipeline(axis, {torch::kFloat});
    const auto forward = [&](int chunk, int, const at::Tensor& input) {
      std::this_thread::sleep_for(std::chrono::milliseconds(6));
      const at::Tensor output = (input.defined() ? input : torch::ones({8})) * weight;
      return chunk * stages + axis.rank() + 1 == table.sizes.parts() ? output.sum() : output;
    };
    pipeline.run(table, {8}, {forward, {}});
    seconds[axis.rank()] = pipeline.seconds();
  });
  double longest = 0;
  for (const auto& each : seconds) longest = std::max(longest, each.computed + each.waited);
  std::vector<double> bubbles;
  for (const auto& each : seconds) bubbles.push_back(1 - each.computed / longest);
  return bubbles;
}

TEST(PipelineOrder, bubble_is_near_the_formula) {
  for (const PipelineSchedule kind : {PipelineSchedule::one_f_one_b, PipelineSchedule::interleaved}) {
    const int chunks = kind == PipelineSchedule::interleaved ? 2 : 1;
    const PipelineTable table = make_pipeline_table(kind, {5, chunks, 10});
    const double formula = simulate(table, {1, 0}).bubble[0];
    // The processors may be busy with others' work: the best of some runs counts.
    double least = 1;
    for (int run = 0; run < 4 && least > formula + 0.03; ++run) {
      const auto bubbles = slow_bubbles(table);
      least = std::min(least, *std::max_element(bubbles.begin(), bubbles.end()));
    }
    printf("%s, 5 stages, 10 micro-batches: bubble %.3f measured, %.3f by the formula\n",
           names_of(kind)[static_cast<size_t>(kind)].c_str(), least, formula);
    // Loose, for busy machines: at least the stages compute side by side, not one after the other.
    EXPECT_GT(least, formula - 0.1);
    EXPECT_LT(least, 1 - 1.0 / table.sizes.stages);
  }
}
}  // namespace
}  // namespace tessera
