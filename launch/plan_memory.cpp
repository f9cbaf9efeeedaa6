#include <algorithm>

#include "launch/plan.h"

namespace tessera {
namespace {

constexpr double loss_chunk = 256 << 20;  // linear_cross_entropy(): logits that exist at a time

/// Bytes of activations, on one rank and for one micro-batch.
class Activations {
 public:
  Activations(const ModelFacts& facts, const Layout& layout)
      : facts_(facts),
        layout_(layout),
        rows_(count_rows(facts, layout)),
        element_(static_cast<double>(layout.working)),
        hidden_(static_cast<double>(facts.hidden)),
        split_(static_cast<double>(layout.tensor)) {}

  double hidden_states() const { return element_ * rows_.own * hidden_; }

  /// Own rows: the input, the two operands of residual sums, the two sums, what feed-forward reads, and two
  /// norms' mean and rstd. Inside: query, key, value, the attention's output and its log-sums, and both ends
  /// of the activation function.
  double block() const {
    const double ends = facts_.trained.keeps_middle ? 2 : 1;
    const double wide = 4 * hidden_ + ends * static_cast<double>(facts_.feed_forward);
    return 6 * hidden_states() + 16 * rows_.own + element_ * rows_.inside * wide / split_ +
           4 * rows_.inside * static_cast<double>(facts_.heads) / split_ + attention_extra();
  }

  /// The most that a block's backward needs beside what it keeps, part of which is gone by then: around the
  /// activation function (with the gradients of the block's output and of the sum before), in the residual
  /// sums, or in attention that keeps its probabilities. Divided layers also have all rows of a gradient, and
  /// of the input that they gather again.
  double block_backward() const {
    const double wide = element_ * rows_.inside / split_, all = element_ * rows_.inside * hidden_;
    const double middle = wide * static_cast<double>(facts_.feed_forward);
    const double most = std::max(
        {middle + 2 * hidden_states(), 3 * hidden_states(), 2 * scores() + 3 * wide * hidden_ - 2 * middle});
    return layout_.tensor == 1 ? most : std::max(most + 2 * all, 4 * all - middle);
  }

  /// The most that a block without a backward needs: around the activation function.
  double block_forward() const {
    return 3 * hidden_states() +
           2 * element_ * rows_.inside * static_cast<double>(facts_.feed_forward) / split_;
  }

  double embedding() const { return (facts_.norm_embeddings ? hidden_states() : 0) + 8 * rows_.inside; }

  /// Of a block's backward, all that it keeps included.
  double in_block() const {
    return block() + block_backward() + (layout_.recompute ? hidden_states() : 0);  // its output again
  }

  /// From the last block to the logits.
  double head() const {
    const double picked = element_ * rows_.predicted * hidden_;
    return (facts_.final_norm ? hidden_states() : 0) + picked * (facts_.dense_head ? 4 : 1);
  }

  bool chunked() const { return layout_.tensor == 1 && all_logits() > loss_chunk; }

  /// Kept for backward: the logits' gradients, or, made chunk by chunk, those of their operands.
  double logits() const {
    if (!chunked()) return all_logits();
    return element_ * rows_.predicted * hidden_ + 4 * table();
  }

  /// Of the loss, beside what is kept: a divided vocabulary's softmax is in fp32; the table's gradient.
  double loss() const {
    const double gradient = facts_.trained.tokens * element_ * table();
    if (chunked()) return loss_chunk + gradient;
    return gradient + (layout_.tensor > 1 ? all_logits() * (layout_.working == 4 ? 1 : 4) : 0);
  }

  /// Elements of this rank's table of tokens.
  double table() const { return static_cast<double>(sum_of({facts_.tokens}, layout_).elements); }

 private:
  double all_logits() const {
    return element_ * rows_.predicted * static_cast<double>(facts_.vocab_size) / split_;
  }
  double scores() const {
    if (!facts_.keeps_attention) return 0;
    const auto length = static_cast<double>(facts_.sequence);
    return element_ * static_cast<double>(layout_.micro_batch * facts_.heads) / split_ * length * length;
  }
  /// Copies for the ring: keys and values joined, and the output in another order; ulysses: the output. With
  /// dropout of probabilities: these twice, and scaled queries.
  double attention_extra() const {
    const double one = element_ * rows_.inside * hidden_ / split_;
    const double copies = layout_.context == 1 ? 0 : layout_.method == ContextMethod::ring ? 3 : 1;
    return one * copies + (facts_.keeps_attention ? one + 2 * scores() : 0);
  }

  const ModelFacts& facts_;
  const Layout& layout_;
  RowCounts rows_;
  double element_, hidden_, split_;
};

/// What of the gradients is there all the time, and what grows through backward as activations go.
struct GradientBytes {
  double lasting = 0, growing = 0, passing = 0;
};

GradientBytes whole_gradients(const Layout& layout, double n) {
  const bool alone = layout.replicate * layout.context == 1, half = layout.working == 2;
  const bool accumulates = layout.micro_batches > 1;
  if (alone && !accumulates) return {0, static_cast<double>(layout.working) * n, 0};
  const double copy = !alone && half && layout.reduced == 2 ? 2 * n : 0;
  return {4 * n + copy, 0, 0};
}

GradientBytes sharded_gradients(const Layout& layout, double part, const ParameterSum& block) {
  const auto ranks = static_cast<double>(layout.shard), reduced = static_cast<double>(layout.reduced);
  GradientBytes bytes;
  bytes.lasting = 4 * part;
  // Stage 1 keeps whole sums through a step's micro-steps; the others have two units' messages under way.
  const bool keeps_messages = layout.zero == 1 && layout.micro_batches > 1;
  if (keeps_messages) bytes.lasting += reduced * ranks * part;
  bytes.passing = static_cast<double>(layout.working * block.elements) +
                  (keeps_messages ? 1 : 2 * ranks + 1) * reduced * static_cast<double>(block.part);
  return bytes;
}

double gathered_bytes(const Layout& layout, const ParameterSum& outer, const ParameterSum& block,
                      int64_t blocks) {
  if (layout.shard == 1) return 0;
  const auto element = static_cast<double>(layout.working);
  if (layout.zero < 3) return element * static_cast<double>(outer.elements + blocks * block.elements);
  const double ahead = static_cast<double>(std::clamp<int64_t>(layout.prefetch, 1, blocks));
  return element * (static_cast<double>(outer.elements + block.elements) +
                    ahead * static_cast<double>(layout.shard * block.part));
}

void fill_activations(const ModelFacts& facts, const Layout& layout, const Stage& stage, Memory& memory) {
  const Activations one(facts, layout);
  const auto live = static_cast<double>(stage.live), chunks = static_cast<double>(layout.chunks);
  const double kept = layout.recompute ? one.hidden_states() : one.block();
  memory.activations = live / chunks * static_cast<double>(stage.learning) * kept;
  // Between parts, outputs are kept too.
  if (!stage.last || layout.chunks > 1) memory.activations += live * one.hidden_states();
  // Messages: the gradient that has come; the input that is to come, and the gradient sent last.
  const bool receives_gradients = !stage.last || layout.chunks > 1;
  const bool receives_inputs = !stage.first || layout.chunks > 1;
  memory.activations += one.hidden_states() * ((receives_gradients ? 1 : 0) + (receives_inputs ? 2 : 0));
  if (stage.first && facts.trained.below_blocks())
    memory.activations += std::max(1.0, live / chunks) * one.embedding();
  memory.temporary = stage.learning > 0 ? one.in_block() - kept : one.block_forward();
  if (!stage.last) return;
  const bool all_at_once = layout.schedule == PipelineSchedule::gpipe && layout.pipeline > 1;
  const double times = all_at_once ? static_cast<double>(layout.micro_batches) : 1;
  memory.activations += times * one.head();
  memory.logits = times * one.logits();
  // A head is done before the blocks' backward begins.
  memory.temporary = std::max(one.loss(), memory.temporary - one.head() - one.logits());
}

/// `share` of the parameters learn. The others have no 32-bit masters beside 16-bit copies.
void fill_parameters(const ModelFacts& facts, const Layout& layout, const ParameterSum& all, double share,
                     Memory& memory) {
  const bool half = layout.working == 2;
  const double held = static_cast<double>(layout.shard > 1 ? all.part : all.elements);
  memory.parameters = share * held;
  memory.weights = 4 * (half ? memory.parameters : held);
  memory.working = half ? 2 * held : 0;
  memory.optimizer = 4 * memory.parameters * static_cast<double>(facts.optimizer_state) /
                     static_cast<double>(std::max<int64_t>(1, facts.trained_total));
  memory.average = layout.average ? 4 * memory.parameters : 0;
  if (layout.offload == Offload::none) return;
  memory.host = memory.weights + memory.optimizer + memory.average;
  memory.weights = memory.optimizer = memory.average = 0;
  memory.working = static_cast<double>(layout.working) * held;
  if (layout.offload != Offload::parameters) return;
  if (half) memory.host += memory.working;  // in fp32 they are the masters
  memory.working = 0;
}

}  // namespace

double block_activations(const ModelFacts& facts, const Layout& layout) {
  return Activations(facts, layout).block();
}

Memory stage_memory(const ModelFacts& facts, const Layout& layout, const Stage& stage) {
  const ParameterSum outer = outer_sum(facts, layout, stage), block = sum_of(facts.block, layout);
  ParameterSum all = outer;
  all += {block.elements * stage.blocks, block.part * stage.blocks, 0, 0};
  Memory memory;
  memory.stage = stage.index;
  const double share = trained_share(facts, layout, stage);
  fill_parameters(facts, layout, all, share, memory);
  fill_activations(facts, layout, stage, memory);
  memory.gathered = gathered_bytes(layout, outer, block, stage.blocks);
  const GradientBytes gradients =
      layout.shard > 1 ? sharded_gradients(layout, share * static_cast<double>(all.part), block)
                       : whole_gradients(layout, share * static_cast<double>(all.elements));
  memory.gradients = gradients.lasting + gradients.growing + gradients.passing;
  const double lasting = memory.weights + memory.working + memory.gathered + memory.optimizer +
                         memory.average + gradients.lasting;
  const double forward = lasting + memory.activations + memory.logits + memory.temporary + gradients.passing;
  const Activations one(facts, layout);
  const double first_block =
      (facts.trained.below_blocks() ? one.embedding() : 0) + (stage.learning > 0 ? one.in_block() : 0);
  const double growing =
      gradients.growing * (1 - static_cast<double>(block.elements) / static_cast<double>(all.elements));
  const double backward = lasting + std::max(gradients.growing, growing + first_block) + gradients.passing;
  // ZeRO 1 and 2 gather everything at once, into a second copy.
  const double start = lasting + (layout.shard > 1 && layout.zero < 3
                                      ? static_cast<double>(layout.working * layout.shard * all.part)
                                      : 0);
  memory.total = std::max({forward, backward, start});
  memory.moment = memory.total == forward    ? "at the end of forward"
                  : memory.total == backward ? "at the end of backward"
                                             : "when parameters are gathered";
  return memory;
}

Memory peak_memory(const ModelFacts& facts, const Layout& layout) {
  Memory worst;
  int64_t most_blocks = 0;
  for (int64_t index = 0; index < layout.pipeline; ++index) {
    const Stage stage = stage_of(facts, layout, index);
    const bool middle = !stage.first && !stage.last;
    // Later stages have fewer micro-batches alive.
    if (middle && stage.blocks <= most_blocks && facts.trained_total == facts.total) continue;
    if (middle) most_blocks = stage.blocks;
    const Memory memory = stage_memory(facts, layout, stage);
    if (memory.total > worst.total) worst = memory;
  }
  return worst;
}

}  // namespace tessera
