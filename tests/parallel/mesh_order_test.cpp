// Whole steps on every mesh of up to 8 ranks, with every schedule, where operations go as on GPUs: in the
// order of their channels, with ranks that are connected by their first operations and end groups together.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "parallel/context_attention.h"
#include "parallel/mesh.h"
#include "parallel/pipeline.h"
#include "parallel/replicate_chunks.h"
#include "parallel/shard.h"
#include "parallel/tensor_split.h"
#include "tests/parallel/ordered_transport.h"

namespace tessera {
namespace {
constexpr int64_t rows = 2, heads = 12, width = 12;
constexpr int blocks_per_chunk = 2, num_micro_batches = 4;
/// CUDA_DEVICE_MAX_CONNECTIONS at its most, less the streams of computation and of copies.
constexpr int most_streams = 32 - 4;

struct Layout {
  MeshSizes sizes;
  int replicate = 1;
  int zero = 1;
  PipelineSchedule schedule = PipelineSchedule::one_f_one_b;
  ContextMethod method = ContextMethod::ring;

  int num_ranks() const { return replicate * sizes.shard * sizes.context * sizes.tensor * sizes.pipeline; }
  int chunks() const { return schedule == PipelineSchedule::interleaved ? 2 : 1; }
  std::string text() const {
    return fmt::format("replicate {} x shard {} (zero {}) x {} {} x tensor {} x pipeline {} ({})", replicate,
                       sizes.shard, zero, method == ContextMethod::ring ? "ring" : "ulysses", sizes.context,
                       sizes.tensor, sizes.pipeline, names_of(schedule)[static_cast<size_t>(schedule)]);
  }
};

/// What every schedule and method makes of a mesh; the stages of ZeRO in turn.
void add_layouts(const MeshSizes& sizes, int replicate, std::vector<Layout>& all) {
  for (const auto schedule :
       {PipelineSchedule::one_f_one_b, PipelineSchedule::gpipe, PipelineSchedule::interleaved}) {
    if (sizes.pipeline == 1 && schedule != PipelineSchedule::one_f_one_b) continue;
    for (const auto method : {ContextMethod::ring, ContextMethod::ulysses}) {
      if (sizes.context == 1 && method != ContextMethod::ring) continue;
      all.push_back({sizes, replicate, 3 - static_cast<int>(all.size() % 3), schedule, method});
    }
  }
}

std::vector<Layout> every_layout() {
  std::vector<Layout> all;
  for (const int replicate : {1, 2}) {
    for (const int pipeline : {1, 2, 3, 4}) {
      for (const int shard : {1, 2, 3, 4}) {
        for (const int context : {1, 2, 3, 4}) {
          for (const int tensor : {1, 2, 4}) {
            const int ranks = replicate * pipeline * shard * context * tensor;
            if (ranks == 1 || ranks > 8) continue;
            add_layouts({.shard = shard, .context = context, .tensor = tensor, .pipeline = pipeline},
                        replicate, all);
          }
        }
      }
    }
  }
  return all;
}

/// One rank's model and what divides it: blocks of a product and attention.
class Rank {
 public:
  Rank(const Communicator& world, const Layout& layout)
      : layout_(layout),
        mesh_(world, layout.sizes),
        split_(mesh_.along(Axis::tensor)),
        pipeline_(mesh_.along(Axis::pipeline), {torch::kFloat}) {
    for (int block = 0; block < layout.chunks() * blocks_per_chunk; ++block) {
      weights_.push_back(torch::full({width, width}, 0.01 * (block + 1)).set_requires_grad(true));
    }
    const Communicator host = world.split(0, world.rank());  // MPI's, on a GPU
    mesh_.size(Axis::shard) > 1 ? shard(host) : replicate(host);
  }

  void step() {
    strategy_->begin_step();
    layout_.sizes.pipeline > 1 ? train_pipeline() : train_alone();
    const auto gradients = strategy_->finish();
    at::Tensor norm = torch::zeros({1});
    for (const auto& gradient : gradients) norm += gradient.square().sum();
    for (const Communicator& group : {mesh_.ends(), mesh_.along(Axis::tensor), mesh_.parts()})
      group.all_reduce(norm);
    EXPECT_GT(norm.item<float>(), 0);
    strategy_->parameters_changed();
  }

  void evaluate() {
    const torch::NoGradGuard no_grad;
    at::Tensor loss = torch::zeros({1});
    if (layout_.sizes.pipeline > 1) {
      const auto forward = [&](int chunk, int, const at::Tensor& input) { return run(chunk, input); };
      const PipelineSizes sizes{layout_.sizes.pipeline, layout_.chunks(), 1};
      for (const auto& each : pipeline_.run(make_forward_table(sizes), {rows, width}, {forward, {}}))
        loss += each;
    } else {
      loss += run(0, {});
    }
    mesh_.data().all_reduce(loss);
    mesh_.world().barrier();
  }

 private:
  void shard(const Communicator& host) {
    std::vector<UnitParameter> parameters;
    for (size_t i = 0; i < weights_.size(); ++i) {
      parameters.push_back({"weight", weights_[i], i + 1, static_cast<int>(i) / blocks_per_chunk});
    }
    ShardOptions options;
    options.zero = layout_.zero;
    options.prefetch = layout_.zero - 1;
    options.shard = mesh_.along(Axis::shard);
    options.replicas = mesh_.replicas();
    options.host = host;
    auto strategy = std::make_unique<Shard>(parameters, options);
    for (const auto& part : strategy->parts()) part.master.fill_(0.01);
    strategy_ = std::move(strategy);
    strategy_->parameters_loaded();
  }

  void replicate(const Communicator& host) {
    std::vector<NamedParameter> parameters;
    std::vector<int> chunks;
    for (size_t i = 0; i < weights_.size(); ++i) {
      parameters.push_back({"weight", weights_[i]});
      chunks.push_back(static_cast<int>(i) / blocks_per_chunk);
    }
    ReplicateOptions options;
    options.host = host;
    strategy_ =
        std::make_unique<ReplicateChunks>(parameters, chunks, layout_.chunks(), mesh_.gradient(), options);
  }

  at::Tensor attend(const at::Tensor& x) const {
    const at::Tensor heads_first = x.view({1, x.size(0), heads, width / heads}).transpose(1, 2);
    ContextAttentionOptions options;
    options.method = layout_.method;
    options.causal = true;
    return context_attention(heads_first, heads_first, heads_first, mesh_.along(Axis::context), options)
        .transpose(1, 2)
        .reshape(x.sizes());
  }

  /// A chunk of this stage; the loss of the last.
  at::Tensor run(int chunk, const at::Tensor& input) {
    at::Tensor hidden = input.defined() ? input : torch::ones({rows, width});
    for (int i = chunk * blocks_per_chunk; i < (chunk + 1) * blocks_per_chunk; ++i) {
      hidden = strategy_->enter(i + 1, hidden);
      at::Tensor inner = split_.size() > 1 ? split_.gather(hidden, 1) : hidden;
      inner = attend(inner.matmul(weights_[i]));
      hidden = strategy_->leave(i + 1, hidden + (split_.size() > 1 ? split_.sum(inner, 1) : inner));
    }
    const bool last = chunk + 1 == layout_.chunks() && pipeline_stage() + 1 == layout_.sizes.pipeline;
    return last ? hidden.square().sum() : hidden;
  }
  int pipeline_stage() const { return mesh_.coordinate(Axis::pipeline); }

  void train_alone() {
    for (int i = 0; i < num_micro_batches; ++i) {
      strategy_->begin_micro_step(i + 1 == num_micro_batches);
      run(0, {}).backward();
      strategy_->end_micro_step();
    }
  }

  /// As trainer/pipeline_step.cpp does it.
  void train_pipeline() {
    bool in_micro_step = false;
    const auto end_micro_step = [&] {
      if (in_micro_step) strategy_->end_micro_step();
      in_micro_step = false;
    };
    PipelineCallbacks callbacks;
    callbacks.forward = [&](int chunk, int, const at::Tensor& input) {
      end_micro_step();
      return run(chunk, input);
    };
    callbacks.begin_backward = [&](int chunk, int, bool last) {
      end_micro_step();
      strategy_->select_chunk(chunk);
      strategy_->begin_micro_step(last);
      in_micro_step = true;
    };
    const PipelineSizes sizes{layout_.sizes.pipeline, layout_.chunks(),
                              num_micro_batches * layout_.sizes.pipeline / 2};
    pipeline_.run(make_pipeline_table(layout_.schedule, sizes), {rows, width}, callbacks);
    end_micro_step();
  }

  Layout layout_;
  Mesh mesh_;
  TensorSplit split_;
  Pipeline pipeline_;
  std::vector<at::Tensor> weights_;
  std::unique_ptr<Strategy> strategy_;
};

TEST(MeshOrder, steps_and_evaluation_never_deadlock) {
  for (const Layout& layout : every_layout()) {
    OrderedJob job(layout.num_ranks(), {.connects = true, .ends_together = true});
    const auto errors = errors_of_ranks(job, [&](const Communicator& world) {
      Rank rank(world, layout);
      rank.step();
      rank.evaluate();
      rank.step();
    });
    for (const auto& error : errors) ADD_FAILURE() << layout.text() << ": " << error;
  }
}

// The same is seen to fail where all of a rank's channels share an order.
TEST(MeshOrder, pipelines_deadlock_where_channels_share_an_order) {
  for (const MeshSizes& sizes : {MeshSizes{.pipeline = 2}, MeshSizes{.tensor = 2, .pipeline = 2}}) {
    const Layout layout{sizes};
    OrderedJob job(layout.num_ranks(), {.order = ChannelOrder::shared});
    const auto errors = errors_of_ranks(job, [&](const Communicator& world) { Rank(world, layout).step(); });
    EXPECT_EQ(errors.size(), static_cast<size_t>(layout.num_ranks())) << layout.text();
    for (const auto& error : errors) EXPECT_NE(error.find("deadlock"), std::string::npos) << error;
  }
}

TEST(MeshOrder, no_rank_needs_more_streams_than_a_gpu_has_queues) {
  for (int bits = 1; bits < 1 << num_axes; ++bits) {
    const auto size = [&](Axis axis) { return bits >> static_cast<int>(axis) & 1 ? 2 : 1; };
    Layout layout{{size(Axis::shard), size(Axis::context), size(Axis::tensor), size(Axis::pipeline)},
                  size(Axis::replicate)};
    OrderedJob job(layout.num_ranks(), {});
    const auto errors = errors_of_ranks(job, [&](const Communicator& world) {
      const Mesh mesh(world, layout.sizes);
      const PipelineLinks links(mesh.along(Axis::pipeline));
    });
    EXPECT_TRUE(errors.empty()) << errors.front();
    for (int rank = 0; rank < layout.num_ranks(); ++rank) {
      EXPECT_LE(job.num_streams(rank), most_streams) << layout.text() << ", rank " << rank;
    }
    if (layout.num_ranks() == 1 << num_axes) printf("five axes: %d streams\n", job.num_streams(0));
  }
}

TEST(MeshOrder, messages_need_a_group_made_for_them) {
  OrderedJob job(2, {});
  const auto errors = errors_of_ranks(job, [](const Communicator& world) {
    const Communicator group = world.split(0, world.rank());
    EXPECT_THROW(group.send(torch::ones({1}), 1 - world.rank()), std::logic_error);
    EXPECT_THROW(group.receive(torch::ones({1}), 1 - world.rank()), std::logic_error);
  });
  EXPECT_TRUE(errors.empty()) << errors.front();
}
}  // namespace
}  // namespace tessera
