// Attention to keys and values that travel round the ranks (Liu et al., Ring attention with blockwise
// transformers, 2023), with the zigzag positions of Zhu's ring-flash-attention under causal masks.
#include <torch/torch.h>

#include <limits>

#include "parallel/attention_kernel.h"
#include "parallel/context_methods.h"
#include "parallel/record.h"

namespace tessera {
namespace {
constexpr double no_key = -std::numeric_limits<double>::infinity();

/// A tensor that goes from rank to rank while the one that was here before is still in use.
class Traveller {
 public:
  /// `keep_first`: what starts here is read only.
  Traveller(const Communicator& group, at::Tensor first, bool keep_first)
      : group_(group), here_(std::move(first)), keep_(keep_first) {}

  const at::Tensor& here() const { return here_; }

  /// Starts sending what is here to the next rank and receiving from the previous one.
  void depart() {
    const int size = group_.size(), rank = group_.rank();
    incoming_ = spare_.defined() ? spare_ : at::empty_like(here_);
    const auto send = [&] { sent_ = group_.send_async(here_, (rank + 1) % size); };
    // Where a device carries out its messages in order, a row of ranks that all send first would wait for the
    // last of them.
    if (rank % 2 == 0) send();
    received_ = group_.receive_async(incoming_, (rank + size - 1) % size);
    if (rank % 2 == 1) send();
  }

  void arrive() {
    sent_.wait();
    received_.wait();
    spare_ = keep_ ? at::Tensor() : here_;
    keep_ = false;
    here_ = incoming_;
  }

 private:
  Communicator group_;
  at::Tensor here_, incoming_, spare_;
  Work sent_, received_;
  bool keep_;
};

/// The part of a rank's queries and of another's keys that see each other.
struct Overlap {
  int64_t first_query, queries, keys;  // the keys start at the first
  bool causal;                         // query i sees the keys 0 to i; otherwise all, but for the mask
};

/// The block of a step: this rank's queries and the keys that are here.
struct Step {
  Overlap overlap;
  AttentionBlock block;
  bool empty = false;  ///< nothing of it may be attended to
};

/// Which blocks there are, the same in forward and backward.
class Ring {
 public:
  Ring(const Communicator& ring_group, const ContextAttentionOptions& options, int64_t local)
      : group(ring_group),
        options_(options),
        zigzag_(context_zigzag(options.method, options.causal)),
        local_(local) {}

  Step step(int number, const at::Tensor& query, const at::Tensor& key_value) const {
    const int source = (group.rank() - number + group.size()) % group.size();
    Step step{overlap(source), {}};
    const Overlap& part = step.overlap;
    step.block = {query.narrow(2, part.first_query, part.queries),
                  key_value[0].narrow(2, 0, part.keys),
                  key_value[1].narrow(2, 0, part.keys),
                  {}};
    step.block.mask.causal = part.causal;
    step.empty = !set_mask(allowed_keys(parts(source, part)), query, step.block.mask);
    return step;
  }

  const Communicator group;

 private:
  // Chunks r and 2n - 1 - r of a rank r: the keys of a lower rank start before all queries and end behind
  // them, those of a higher rank lie between this rank's two chunks.
  Overlap overlap(int source) const {
    if (!zigzag_ || source == group.rank()) return {0, local_, local_, zigzag_};
    if (source < group.rank()) return {0, local_, local_ / 2, false};
    return {local_ / 2, local_ / 2, local_, false};
  }

  MaskParts parts(int source, const Overlap& overlap) const {
    const auto of = [this](const at::Tensor& whole, int rank, int64_t first, int64_t length) {
      return whole.defined() ? context_part(whole, 1, rank, group.size(), zigzag_).narrow(1, first, length)
                             : whole;
    };
    return {of(options_.key_mask, source, 0, overlap.keys),
            of(options_.documents, group.rank(), overlap.first_query, overlap.queries),
            of(options_.documents, source, 0, overlap.keys)};
  }

  // False where nothing is allowed. Only the CPU looks: on a GPU that would make the host wait.
  static bool set_mask(at::Tensor allowed, const at::Tensor& query, BlockMask& mask) {
    if (!allowed.defined() || (allowed.is_cpu() && allowed.all().item<bool>())) return true;
    if (mask.causal) allowed = causally_allowed(allowed);
    if (allowed.is_cpu() && !allowed.any().item<bool>()) return false;
    mask.empty_rows = allowed.any(3).logical_not_();
    mask.bias = masking_bias(allowed, query, choose_kernel(query, /*biased=*/true));
    return true;
  }

  ContextAttentionOptions options_;
  bool zigzag_;
  int64_t local_;
};

at::Tensor rows_of(const at::Tensor& x, const Overlap& overlap) {
  return x.narrow(2, overlap.first_query, overlap.queries);
}

AttentionRows rows_of(const AttentionRows& rows, const Overlap& overlap) {
  return {rows_of(rows.output, overlap), rows_of(rows.log_sum, overlap)};
}

at::Tensor with_adjacent_elements(const at::Tensor& x) { return x.stride(3) == 1 ? x : x.contiguous(); }

/// What backward needs of forward.
struct RingMemory {
  at::Tensor query;
  at::Tensor key_value;  ///< [2, batch, heads, local sequence, head_size]
  AttentionRows rows;
};

/// The attention of `memory.query`, in block_type().
AttentionRows ring_forward(const Ring& ring, const RingMemory& memory) {
  const at::Tensor& query = memory.query;
  const auto options = query.options().dtype(block_type(query));
  // As [batch, queries, heads, head_size] in memory, where kernels and the projection that follows want it.
  const at::Tensor output = at::zeros(query.transpose(1, 2).sizes(), options).transpose(1, 2);
  AttentionRows rows{output, at::full(query.sizes().slice(0, 3), no_key, options)};
  Traveller keys(ring.group, memory.key_value, /*keep_first=*/true);
  for (int number = 0; number < ring.group.size(); ++number) {
    const bool last = number + 1 == ring.group.size();
    if (!last) keys.depart();
    const Step step = ring.step(number, query, keys.here());
    if (!step.empty) merge_rows(rows_of(rows, step.overlap), attend_block(step.block));
    if (!last) keys.arrive();
  }
  return rows;
}

/// The gradients of query and key_value, in block_type(). The keys travel as in forward; the sums of their
/// gradients follow one step behind, and get home with a step after the last.
std::array<at::Tensor, 2> ring_backward(const Ring& ring, const RingMemory& memory,
                                        const at::Tensor& gradient) {
  const auto options = memory.query.options().dtype(block_type(memory.query));
  const at::Tensor query_gradient = at::zeros(memory.query.sizes(), options);
  Traveller keys(ring.group, memory.key_value, /*keep_first=*/true);
  Traveller sums(ring.group, at::zeros(memory.key_value.sizes(), options), /*keep_first=*/false);
  for (int number = 0; number < ring.group.size(); ++number) {
    const bool last = number + 1 == ring.group.size();
    if (!last) keys.depart();
    const Step step = ring.step(number, memory.query, keys.here());
    std::array<at::Tensor, 3> parts;
    if (!step.empty)
      parts = attend_block_backward(step.block, rows_of(memory.rows, step.overlap),
                                    rows_of(gradient, step.overlap));
    if (number > 0) sums.arrive();  // only now: they travelled meanwhile
    if (!step.empty) {
      rows_of(query_gradient, step.overlap).add_(parts[0]);
      for (int i = 0; i < 2; ++i) sums.here()[i].narrow(2, 0, step.overlap.keys).add_(parts[1 + i]);
    }
    sums.depart();
    if (!last) keys.arrive();
  }
  sums.arrive();
  return {query_gradient, sums.here()};
}

}  // namespace

at::Tensor ring_attention(const AttentionInput& input, const Communicator& group,
                          const ContextAttentionOptions& options) {
  const Ring ring(group, options, input.query.size(2));
  RingMemory memory;
  at::Tensor output;
  {
    at::NoGradGuard no_grad;
    memory.query = with_adjacent_elements(input.query).detach();
    memory.key_value = at::stack({input.key, input.value});
    memory.rows = ring_forward(ring, memory);
    output = memory.rows.output.to(input.query.scalar_type());
  }
  const std::vector<at::Tensor> inputs{input.query, input.key, input.value};
  if (!must_record(inputs)) return output;
  memory.rows = {output.detach(), memory.rows.log_sum.masked_fill(memory.rows.log_sum == no_key, 0)};
  record(inputs, {&output}, [ring, memory](const BackwardNode::Gradients& gradients, BackwardNode& node) {
    const at::Tensor outer = gradients[0].defined() ? gradients[0] : at::zeros_like(memory.query);
    const auto [query, key_value] = ring_backward(ring, memory, with_adjacent_elements(outer));
    const auto type = memory.query.scalar_type();
    BackwardNode::Gradients result(3);
    if (node.wanted(0)) result[0] = query.to(type);
    if (node.wanted(1)) result[1] = key_value[0].to(type);
    if (node.wanted(2)) result[2] = key_value[1].to(type);
    return result;
  });
  return output;
}

}  // namespace tessera
