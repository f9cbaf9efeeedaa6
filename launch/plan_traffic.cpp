#include <algorithm>
#include <cmath>

#include "launch/plan.h"

namespace tessera {
namespace {

/// Ranks that take part in a message, on some axes of the mesh.
struct Party {
  const char* axis;
  int64_t ranks = 1, per_host = 1;
};

/// The mesh's order decides who shares a host: tensor runs fastest, pipeline slowest.
int64_t stride_of(const Layout& layout, Axis axis) {
  int64_t stride = 1;
  for (int inner = num_axes - 1; inner > static_cast<int>(axis); --inner)
    stride *= layout.size(static_cast<Axis>(inner));
  return stride;
}

Party party(const Layout& layout, const char* name, std::initializer_list<Axis> axes) {
  Party result{name};
  const int64_t on_host = std::max<int64_t>(1, layout.ranks / layout.hosts);
  for (const Axis axis : axes) {
    result.ranks *= layout.size(axis);
    result.per_host *= std::clamp<int64_t>(on_host / stride_of(layout, axis), 1, layout.size(axis));
  }
  return result;
}

class Flows {
 public:
  explicit Flows(Party party) : party_(party) {}
  void add(std::vector<Flow>& flows, const char* what, Pattern pattern, double times, double bytes,
           Hidden hidden = Hidden::nowhere) const {
    if (party_.ranks == 1 || times <= 0 || bytes <= 0) return;
    flows.push_back({party_.axis, what, pattern, hidden, party_.ranks, party_.per_host, times, bytes});
  }

 private:
  Party party_;
};

/// What all traffic is made from.
struct FlowContext {
  const ModelFacts& facts;
  const Layout& layout;
  const Stage& stage;
  RowCounts rows;
  ParameterSum outer, block;
  double micro_batches, blocks, element, hidden;
  double trained_outer, trained_blocks;  ///< what of `outer`, and how many blocks' worth, learn

  FlowContext(const ModelFacts& model, const Layout& where, const Stage& which)
      : facts(model),
        layout(where),
        stage(which),
        rows(count_rows(model, where)),
        outer(outer_sum(model, where, which)),
        block(sum_of(model.block, where)),
        micro_batches(static_cast<double>(where.micro_batches)),
        blocks(static_cast<double>(which.blocks)),
        element(static_cast<double>(where.working)),
        hidden(static_cast<double>(model.hidden)),
        trained_outer(outer.part > 0 ? outer_trained(model, where, which) / static_cast<double>(outer.part)
                                     : 0),
        trained_blocks(which.trained) {}
  double all_rows() const { return element * rows.inside * hidden; }  // bytes of them
  bool outside() const { return stage.first || stage.last; }
};

/// Whole gradients, bucket by bucket: filled in the order in which backward reaches them.
double count_buckets(const FlowContext& traffic) {
  const Layout& layout = traffic.layout;
  const ModelFacts& facts = traffic.facts;
  int64_t buckets = 0, filled = 0;
  const int64_t most = layout.bucket_bytes / 4;
  const auto take = [&](std::vector<ParameterFacts> list) {
    std::reverse(list.begin(), list.end());
    for (const ParameterFacts& each : list) {
      const int64_t count = sum_of({each}, layout).elements;
      if (buckets == 0 || filled + count > most) {
        ++buckets;
        filled = 0;
      }
      filled += count;
    }
  };
  if (traffic.stage.last) take(facts.head);
  for (int64_t i = 0; i < traffic.stage.blocks; ++i) take(facts.block);
  if (traffic.stage.first) take(facts.embeddings);
  if (traffic.outside()) take({facts.tokens});
  return static_cast<double>(buckets);
}

void add_tensor(const FlowContext& traffic, std::vector<Flow>& flows) {
  const Flows tensor(party(traffic.layout, "tensor", {Axis::tensor}));
  const bool again = traffic.layout.recompute;
  const double m = traffic.micro_batches, per_block = m * traffic.blocks, all = traffic.all_rows();
  // Attention and feed-forward each: gathered before, summed after; backward the reverse, and the input
  // again.
  tensor.add(flows, "blocks: gathers", Pattern::gather, per_block * (again ? 8 : 6), all);
  tensor.add(flows, "blocks: sums", Pattern::scatter, per_block * (again ? 6 : 4), all);
  if (traffic.stage.first) {
    tensor.add(flows, "embedding: sum", Pattern::scatter, m, all);
    tensor.add(flows, "embedding: gradient", Pattern::gather, m, all);
  }
  if (traffic.stage.last) {
    const double picked = traffic.element * traffic.rows.predicted * traffic.hidden;
    const bool picks = traffic.facts.predicted < 1 || traffic.layout.context > 1;
    if (picks) {
      tensor.add(flows, "head: predicted rows", Pattern::all_reduce, 2 * m, picked);
    } else {
      tensor.add(flows, "head: rows", Pattern::gather, m, all);
      tensor.add(flows, "head: gradient", Pattern::scatter, m, all);
    }
    tensor.add(flows, "softmax: maxima", Pattern::all_reduce, m, 4 * traffic.rows.predicted);
    tensor.add(flows, "softmax: sums", Pattern::all_reduce, m, 12 * traffic.rows.predicted);
    const double first = traffic.element * static_cast<double>(traffic.layout.micro_batch) * traffic.hidden;
    if (traffic.facts.pair_head) tensor.add(flows, "head: first rows", Pattern::all_reduce, 2 * m, first);
  }
  const bool alone = traffic.layout.shard * traffic.layout.replicate * traffic.layout.context == 1;
  const double wide = alone && traffic.layout.micro_batches == 1 ? traffic.element : 4;
  const double unsplit = traffic.trained_outer * static_cast<double>(traffic.outer.unsplit) +
                         traffic.trained_blocks * static_cast<double>(traffic.block.unsplit);
  tensor.add(flows, "gradients of undivided parameters", Pattern::all_reduce, 1, wide * unsplit);
}

void add_context(const FlowContext& traffic, std::vector<Flow>& flows) {
  const Layout& layout = traffic.layout;
  const Flows context(party(layout, "context", {Axis::context}));
  const auto c = static_cast<double>(layout.context), forwards = layout.recompute ? 2.0 : 1.0;
  const double per_block = traffic.micro_batches * traffic.blocks;
  const double one = traffic.all_rows() / static_cast<double>(layout.tensor);  // query, key or value
  if (layout.method == ContextMethod::ulysses) {
    context.add(flows, "queries, keys, values to heads", Pattern::all_to_all, per_block * (forwards + 1),
                3 * one);
    context.add(flows, "outputs to positions", Pattern::all_to_all, per_block * (forwards + 1), one);
    return;
  }
  const double keys = per_block * (c - 1) * (forwards + 1);
  context.add(flows, "keys and values to the next", Pattern::send, keys, 2 * one);
  context.add(flows, "keys and values arrive", Pattern::receive, keys, 2 * one);
  const double wide = 2 * one * 4 / traffic.element;  // sums of gradients are in fp32
  context.add(flows, "their gradients to the next", Pattern::send, per_block * c, wide);
  context.add(flows, "their gradients arrive", Pattern::receive, per_block * c, wide);
}

void add_pipeline(const FlowContext& traffic, std::vector<Flow>& flows) {
  const Layout& layout = traffic.layout;
  const Flows pipeline(party(layout, "pipeline", {Axis::pipeline}));
  const double parts = traffic.micro_batches * static_cast<double>(layout.chunks);
  const double own = traffic.element * traffic.rows.own * traffic.hidden;
  const double onward = parts - (traffic.stage.last ? traffic.micro_batches : 0);
  const double back = parts - (traffic.stage.first ? traffic.micro_batches : 0);
  pipeline.add(flows, "activations to the next", Pattern::send, onward, own, Hidden::all_compute);
  pipeline.add(flows, "activations arrive", Pattern::receive, back, own, Hidden::all_compute);
  pipeline.add(flows, "gradients to the one before", Pattern::send, back, own, Hidden::all_compute);
  pipeline.add(flows, "gradients arrive", Pattern::receive, onward, own, Hidden::all_compute);
  if (!traffic.outside()) return;
  Party ends = party(layout, "pipeline", {Axis::pipeline});
  if (ends.ranks == 1) return;
  ends.per_host = ends.per_host == ends.ranks ? 2 : 1;
  ends.ranks = 2;
  Flows(ends).add(flows, "table of tokens: gradient", Pattern::all_reduce, 1,
                  4 * static_cast<double>(sum_of({traffic.facts.tokens}, layout).part));
}

void add_replicate(const FlowContext& traffic, std::vector<Flow>& flows) {
  const Layout& layout = traffic.layout;
  const Flows replicas(party(layout, "replicate", {Axis::replicate, Axis::context}));
  const auto all = [&](int64_t ParameterSum::*sum) {
    return traffic.trained_outer * static_cast<double>(traffic.outer.*sum) +
           traffic.trained_blocks * static_cast<double>(traffic.block.*sum);
  };
  if (layout.shard == 1) {
    const double bytes = 4 * all(&ParameterSum::elements);
    const double buckets = traffic.facts.trained_total == traffic.facts.total
                               ? count_buckets(traffic)
                               : std::ceil(bytes / static_cast<double>(layout.bucket_bytes));
    replicas.add(flows, "gradients", Pattern::all_reduce, buckets,
                 static_cast<double>(layout.reduced) * all(&ParameterSum::elements) / std::max(1.0, buckets),
                 Hidden::last_backward);
  } else {
    replicas.add(flows, "parts of gradients: blocks", Pattern::all_reduce, traffic.trained_blocks,
                 4 * static_cast<double>(traffic.block.part), Hidden::last_backward);
    replicas.add(flows, "parts of gradients: others", Pattern::all_reduce, 1,
                 4 * traffic.trained_outer * static_cast<double>(traffic.outer.part));
  }
  const Flows everyone(party(layout, "replicate", {Axis::replicate, Axis::shard, Axis::context}));
  everyone.add(flows, "which parameters had gradients", Pattern::all_reduce, 1, all(&ParameterSum::count));
}

void add_shard(const FlowContext& traffic, std::vector<Flow>& flows) {
  const Layout& layout = traffic.layout;
  const Flows shard(party(layout, "shard", {Axis::shard}));
  const auto ranks = static_cast<double>(layout.shard);
  const double block = ranks * static_cast<double>(traffic.block.part), m = traffic.micro_batches;
  const double outer = ranks * static_cast<double>(traffic.outer.part);
  if (layout.zero == 3) {
    // Before forward and before backward; a stage's last block stays from a forward to what comes next.
    const double each = 2 * traffic.blocks - 1;
    shard.add(flows, "blocks gathered", Pattern::gather, m * each, traffic.element * block,
              Hidden::all_compute);
    shard.add(flows, "others gathered", Pattern::gather, 1, traffic.element * outer);
  } else {
    shard.add(flows, "blocks gathered", Pattern::gather, traffic.blocks, traffic.element * block,
              Hidden::first_forward);
    shard.add(flows, "others gathered", Pattern::gather, 1, traffic.element * outer);
  }
  const auto reduced = static_cast<double>(layout.reduced);
  const double reductions = layout.zero == 1 ? 1 : m;
  const Hidden beside = layout.zero == 1 ? Hidden::last_backward : Hidden::all_backwards;
  shard.add(flows, "gradients of blocks", Pattern::scatter, reductions * traffic.trained_blocks,
            reduced * block, beside);
  shard.add(flows, "gradients of others", Pattern::scatter, reductions,
            reduced * traffic.trained_outer * outer, beside);
}

void add_agreement(const FlowContext& traffic, std::vector<Flow>& flows) {
  const Layout& layout = traffic.layout;
  const Flows all(
      party(layout, "all", {Axis::pipeline, Axis::replicate, Axis::shard, Axis::context, Axis::tensor}));
  all.add(flows, "counts of predictions", Pattern::all_reduce, 1,
          8 * static_cast<double>(traffic.facts.num_terms + 3), Hidden::all_compute);
  const Flows parts(party(layout, "all", {Axis::pipeline, Axis::shard, Axis::tensor}));
  parts.add(flows, "gradient norm", Pattern::all_reduce, 1, 4);
}

}  // namespace

double Flow::sent() const {
  const auto n = static_cast<double>(ranks);
  constexpr double small = 32 << 10;
  switch (pattern) {
    case Pattern::all_reduce:
      return bytes <= small ? std::floor(std::log2(n)) * bytes : 2 * (n - 1) / n * bytes;
    case Pattern::send:
      return bytes;
    case Pattern::receive:
      return 0;
    default:
      return (n - 1) / n * bytes;
  }
}

std::vector<Flow> step_traffic(const ModelFacts& facts, const Layout& layout, const Stage& stage) {
  const FlowContext traffic(facts, layout, stage);
  std::vector<Flow> flows;
  flows.reserve(24);
  add_tensor(traffic, flows);
  add_context(traffic, flows);
  add_shard(traffic, flows);
  add_replicate(traffic, flows);
  add_pipeline(traffic, flows);
  add_agreement(traffic, flows);
  return flows;
}

double flow_seconds(const Flow& flow, const MachineFigures& machine) {
  if (flow.pattern == Pattern::receive) return 0;  // beside the send
  const bool within = flow.per_host >= flow.ranks;
  const LinkFigures& link = within ? machine.inside : machine.between;
  const bool collective = flow.pattern != Pattern::send;
  const double hops = collective ? std::ceil(std::log2(static_cast<double>(flow.ranks))) : 1;
  // A ring through several hosts enters and leaves each by all of its ranks' ways.
  const double ways = collective && !within ? static_cast<double>(flow.per_host) : 1;
  const double bandwidth = std::min(machine.inside.bandwidth, link.bandwidth * ways);
  return flow.times * (hops * link.latency + flow.sent() / bandwidth);
}

}  // namespace tessera
