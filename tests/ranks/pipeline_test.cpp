// The pipeline against the same chain of blocks computed whole on every rank.
#include "parallel/pipeline.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <thread>

#include "tests/ranks/transports.h"

namespace tessera {
namespace {
constexpr int width = 6;

/// A chain of parts, each two layers, and a loss at its end.
class Chain {
 public:
  Chain(int num_parts, at::Device device, int batch) : batch_(batch) {
    torch::manual_seed(7);
    const auto options = torch::TensorOptions().dtype(torch::kDouble);
    for (int i = 0; i < num_parts; ++i) {
      weights_.push_back(torch::randn({2, width, width}, options).to(device).set_requires_grad(true));
    }
  }
  std::vector<at::Tensor>& weights() { return weights_; }

  at::Tensor sample(int micro_batch) const {
    const auto count = torch::arange(batch_ * width, weights_[0].options().requires_grad(false));
    return torch::sin(count * 0.7 + 10.0 * micro_batch).view({batch_, width});
  }
  /// `input` is undefined for the first part.
  at::Tensor part(int part, int micro_batch, const at::Tensor& input) const {
    at::Tensor hidden = input.defined() ? input : sample(micro_batch);
    for (int layer = 0; layer < 2; ++layer) hidden = torch::tanh(hidden.matmul(weights_[part][layer]));
    const bool last = part + 1 == static_cast<int>(weights_.size());
    return last ? (hidden * (1 + micro_batch)).pow(2).sum() : hidden;
  }
  at::Tensor loss(int micro_batch) const {
    at::Tensor hidden;
    for (size_t i = 0; i < weights_.size(); ++i) hidden = part(static_cast<int>(i), micro_batch, hidden);
    return hidden;
  }

 private:
  int batch_;
  std::vector<at::Tensor> weights_;
};

struct PipelineCase {
  PipelineSchedule kind;
  int chunks;
  int micro_batches_per_stage;
  int extra = 0;  // micro-batches
};

void PrintTo(const PipelineCase& given, std::ostream* out) {
  *out << names_of(given.kind)[static_cast<size_t>(given.kind)] << " v=" << given.chunks
       << " m=" << given.micro_batches_per_stage << "p+" << given.extra;
}

void expect_near(const at::Tensor& actual, const at::Tensor& expected, const std::string& what) {
  ASSERT_TRUE(actual.defined()) << what;
  const double scale = std::max(1.0, expected.abs().max().item<double>());
  EXPECT_LE((actual - expected).abs().max().item<double>() / scale, 1e-12) << what;
}

/// One pipeline and the whole chain, on the ranks of a transport.
struct Both {
  Both(const std::string& transport, int chunks, std::vector<bool> needs_gradient = {}, int batch_ = 3)
      : axis(make_test_communicator(transport)),
        batch(batch_),
        num_parts(axis.size() * chunks),
        chain(num_parts, axis.device(), batch),
        whole(num_parts, axis.device(), batch),
        pipeline(axis, {chain.weights()[0].options().requires_grad(false), needs_gradient}) {
    for (size_t part = 0; part < needs_gradient.size(); ++part) {
      chain.weights()[part].set_requires_grad(needs_gradient[part]);
      whole.weights()[part].set_requires_grad(needs_gradient[part]);
    }
  }
  int part(int chunk) const { return chunk * axis.size() + axis.rank(); }
  bool last_stage() const { return axis.rank() + 1 == axis.size(); }

  PipelineCallbacks callbacks() {
    return {[this](int chunk, int micro_batch, const at::Tensor& input) {
              EXPECT_EQ(input.defined(), part(chunk) > 0);
              if (pause) pause(micro_batch);
              return chain.part(part(chunk), micro_batch, input);
            },
            [this](int chunk, int micro_batch, bool last) {
              if (pause) pause(micro_batch + 1);
              begun[chunk].push_back(last);
            }};
  }
  std::vector<at::Tensor> run(const PipelineTable& table) {
    begun.assign(table.sizes.chunks, {});
    return pipeline.run(table, {batch, width}, callbacks());
  }

  void expect_losses(const std::vector<at::Tensor>& losses, int micro_batches) const {
    ASSERT_EQ(static_cast<int>(losses.size()), last_stage() ? micro_batches : 0);
    for (size_t i = 0; i < losses.size(); ++i) {
      EXPECT_FALSE(losses[i].requires_grad());
      expect_near(losses[i], whole.loss(static_cast<int>(i)).detach(), "loss " + std::to_string(i));
    }
  }
  void expect_gradients(int chunks) {
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const at::Tensor& expected = whole.weights()[part(chunk)].grad();
      const at::Tensor& actual = chain.weights()[part(chunk)].grad();
      ASSERT_EQ(actual.defined(), expected.defined()) << "part " << part(chunk);
      if (expected.defined()) expect_near(actual, expected, "part " + std::to_string(part(chunk)));
    }
  }

  Communicator axis;
  int batch;
  int num_parts;
  Chain chain;
  Chain whole;
  Pipeline pipeline;
  std::function<void(int)> pause;
  std::vector<std::vector<bool>> begun;  // per chunk: `last` of each backward
};

class PipelineTest : public testing::TestWithParam<PipelineCase> {};

TEST_P(PipelineTest, losses_and_gradients_equal_the_whole_chain) {
  const PipelineCase& given = GetParam();
  for (const auto& transport : test_transports()) {
    Both both(transport, given.chunks);
    const int micro_batches = given.micro_batches_per_stage * both.axis.size() + given.extra;
    const auto table = make_pipeline_table(given.kind, {both.axis.size(), given.chunks, micro_batches});
    for (int step = 0; step < 2; ++step) {  // gradients accumulate over both
      both.expect_losses(both.run(table), micro_batches);
      for (int i = 0; i < micro_batches; ++i) both.whole.loss(i).backward();
      both.expect_gradients(given.chunks);
      std::vector<bool> expected(micro_batches, false);
      expected.back() = true;
      for (const auto& chunk : both.begun) EXPECT_EQ(chunk, expected);
    }
  }
}

TEST_P(PipelineTest, forward_only_keeps_no_graph) {
  const PipelineCase& given = GetParam();
  for (const auto& transport : test_transports()) {
    Both both(transport, given.chunks);
    const int micro_batches = given.micro_batches_per_stage * both.axis.size() + given.extra;
    both.expect_losses(both.run(make_forward_table({both.axis.size(), given.chunks, micro_batches})),
                       micro_batches);
    for (const auto& weight : both.chain.weights()) EXPECT_FALSE(weight.grad().defined());
    for (const auto& chunk : both.begun) EXPECT_TRUE(chunk.empty());
  }
}

// Frozen are the first parts, beyond which no gradient goes, and one further on, which it crosses.
TEST_P(PipelineTest, frozen_parts_get_no_gradient_and_send_none_back) {
  const PipelineCase& given = GetParam();
  for (const auto& transport : test_transports()) {
    const int stages = make_test_communicator(transport).size();
    const int num_parts = stages * given.chunks;
    std::vector<bool> needs_gradient(num_parts, true);
    const int num_frozen = num_parts / 2;
    for (int part = 0; part < num_frozen; ++part) needs_gradient[part] = false;
    if (num_frozen + 2 < num_parts) needs_gradient[num_frozen + 1] = false;
    Both both(transport, given.chunks, needs_gradient);
    const int micro_batches = given.micro_batches_per_stage * stages + given.extra;
    both.expect_losses(both.run(make_pipeline_table(given.kind, {stages, given.chunks, micro_batches})),
                       micro_batches);
    for (int i = 0; i < micro_batches; ++i) both.whole.loss(i).backward();
    both.expect_gradients(given.chunks);
    for (int chunk = 0; chunk < given.chunks; ++chunk) {
      EXPECT_EQ(both.begun[chunk].empty(), both.part(chunk) < num_frozen);
    }
  }
}

TEST_P(PipelineTest, messages_stay_in_order_whoever_is_slow) {
  const PipelineCase& given = GetParam();
  for (const auto& transport : test_transports()) {
    Both both(transport, given.chunks);
    const int stages = both.axis.size();
    both.pause = [&](int number) {
      const int spread = (number * 7 + both.axis.rank() * 5) % 11;
      std::this_thread::sleep_for(std::chrono::microseconds(spread < 8 ? 0 : spread * 100));
    };
    const int micro_batches = given.micro_batches_per_stage * stages + given.extra;
    both.expect_losses(both.run(make_pipeline_table(given.kind, {stages, given.chunks, micro_batches})),
                       micro_batches);
    for (int i = 0; i < micro_batches; ++i) both.whole.loss(i).backward();
    both.expect_gradients(given.chunks);
  }
}

INSTANTIATE_TEST_SUITE_P(Schedules, PipelineTest,
                         testing::Values(PipelineCase{PipelineSchedule::one_f_one_b, 1, 0, 1},
                                         PipelineCase{PipelineSchedule::one_f_one_b, 1, 0, 2},
                                         PipelineCase{PipelineSchedule::one_f_one_b, 1, 3, 1},
                                         PipelineCase{PipelineSchedule::gpipe, 1, 2, 1},
                                         PipelineCase{PipelineSchedule::gpipe, 3, 1, 1},
                                         PipelineCase{PipelineSchedule::gpipe, 2, 0, 1},
                                         PipelineCase{PipelineSchedule::interleaved, 1, 2},
                                         PipelineCase{PipelineSchedule::interleaved, 2, 1},
                                         PipelineCase{PipelineSchedule::interleaved, 2, 3},
                                         PipelineCase{PipelineSchedule::interleaved, 3, 2}));

// Such messages go only once both sides are ready.
TEST(PipelineMessages, may_be_large) {
  for (const auto& transport : test_transports()) {
    Both both(transport, 2, {}, 20000);
    const int micro_batches = 2 * both.axis.size();
    const auto table =
        make_pipeline_table(PipelineSchedule::interleaved, {both.axis.size(), 2, micro_batches});
    both.expect_losses(both.run(table), micro_batches);
    for (int i = 0; i < micro_batches; ++i) both.whole.loss(i).backward();
    both.expect_gradients(2);
  }
}

TEST(PipelineChecks, what_is_not_as_announced_is_an_error) {
  Pipeline pipeline(Communicator(), {torch::kDouble});
  const PipelineTable table = make_pipeline_table(PipelineSchedule::gpipe, {1, 2, 1});
  const auto returning = [](const at::Tensor& hidden) {
    return PipelineCallbacks{[hidden](int, int, const at::Tensor&) { return hidden; }, {}};
  };
  const auto good = torch::ones({2, 3}, torch::kDouble).set_requires_grad(true);
  EXPECT_THROW(pipeline.run(table, {3, 2}, returning(good)), std::logic_error);
  EXPECT_THROW(pipeline.run(table, {2, 3}, returning(good.to(torch::kFloat))), std::logic_error);
  EXPECT_THROW(pipeline.run(table, {2, 3}, returning(good.detach())), std::logic_error);
  EXPECT_THROW(pipeline.run(table, {2, 3}, returning({})), std::logic_error);
  EXPECT_THROW(pipeline.run(make_forward_table({2, 1, 1}), {2, 3}, returning(good)), std::logic_error);
  EXPECT_THROW(pipeline.run(make_zero_bubble_table({1, 1, 1}), {2, 3}, returning(good)), std::logic_error);
  Pipeline flags(Communicator(), {torch::kDouble, {true, true, true}});
  EXPECT_THROW(flags.run(table, {2, 3}, returning(good)), std::logic_error);
}

void sleep_milliseconds(double milliseconds) {
  std::this_thread::sleep_for(std::chrono::duration<double, std::milli>(milliseconds));
}

constexpr double slow_milliseconds = 10;  // a forward; a backward takes twice as long

struct SlowPart : torch::autograd::Function<SlowPart> {
  static at::Tensor forward(torch::autograd::AutogradContext*, const at::Tensor& input,
                            const at::Tensor& weight) {
    sleep_milliseconds(slow_milliseconds);
    return input * weight;
  }
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext*,
                                               const torch::autograd::tensor_list& gradients) {
    sleep_milliseconds(2 * slow_milliseconds);
    return {gradients[0], gradients[0].sum()};
  }
};

// The bubble of every stage, the slowest of all deciding how long the step took.
std::vector<double> measured_bubbles(const Communicator& axis, const PipelineSeconds& seconds) {
  const at::Tensor longest = at::full({1}, seconds.computed + seconds.waited, at::kDouble);
  axis.all_reduce(longest, Reduction::max);
  std::vector<double> bubbles;
  for (const auto& text : axis.gather_text(std::to_string(seconds.computed))) {
    bubbles.push_back(1 - std::stod(text) / longest.item<double>());
  }
  return bubbles;
}

// The processors may be busy with others' work: the best of some runs counts.
std::vector<double> least_bubbles(const Communicator& axis, const PipelineTable& table) {
  Pipeline pipeline(axis, {torch::kFloat});
  const at::Tensor weight = torch::ones({}).set_requires_grad(true);
  const auto forward = [&](int chunk, int, const at::Tensor& input) {
    const bool last = chunk * axis.size() + axis.rank() + 1 == table.sizes.parts();
    const at::Tensor output = SlowPart::apply(input.defined() ? input : torch::ones({8}), weight);
    return last ? output.sum() : output;
  };
  std::vector<double> least(axis.size(), 1);
  const double formula = simulate(table).bubble[0];
  for (int run = 0; run < 4 && *std::max_element(least.begin(), least.end()) > formula + 0.05; ++run) {
    axis.barrier();
    pipeline.run(table, {8}, {forward, {}});
    const auto bubbles = measured_bubbles(axis, pipeline.seconds());
    for (size_t i = 0; i < least.size(); ++i) least[i] = std::min(least[i], bubbles[i]);
  }
  return least;
}

TEST(PipelineBubble, is_near_the_formula) {
  const Communicator& axis = test_world().communicator();
  const int stages = axis.size();
  for (const PipelineSchedule kind :
       {PipelineSchedule::gpipe, PipelineSchedule::one_f_one_b, PipelineSchedule::interleaved}) {
    const int chunks = kind == PipelineSchedule::interleaved ? 2 : 1;
    const PipelineTable table = make_pipeline_table(kind, {stages, chunks, 2 * stages});
    const auto bubbles = least_bubbles(axis, table);
    const auto forecast = simulate(table);
    for (int stage = 0; stage < stages; ++stage) {
      // Loose, for busy machines: at least the stages compute side by side, not one after the other.
      EXPECT_GT(bubbles[stage], forecast.bubble[stage] - 0.15) << "stage " << stage;
      EXPECT_LT(bubbles[stage], std::max(0.15, 1 - 1.0 / stages)) << "stage " << stage;
      if (axis.rank() != 0) continue;
      printf("%s, %d micro-batches, stage %d: bubble %.3f measured, %.3f by the formula\n",
             names_of(kind)[static_cast<size_t>(kind)].c_str(), 2 * stages, stage, bubbles[stage],
             forecast.bubble[stage]);
    }
  }
}
}  // namespace
}  // namespace tessera
