#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "launch/machine.h"
#include "launch/model_facts.h"
#include "parallel/mesh.h"

/// What a layout costs, told before it runs: bytes, messages and seconds of one rank, from shapes alone.
namespace tessera {

/// How the work of one step is divided.
struct Layout {
  int64_t ranks = 1, hosts = 1;
  int64_t pipeline = 1, replicate = 1, shard = 1, context = 1, tensor = 1;
  int64_t zero = 3, prefetch = 1;
  int64_t micro_batch = 1;    ///< sequences that a rank computes at a time
  int64_t micro_batches = 1;  ///< of a step, for each replica
  bool recompute = false;
  ContextMethod method = ContextMethod::ring;
  PipelineSchedule schedule = PipelineSchedule::one_f_one_b;
  int64_t chunks = 1;
  std::vector<int> first_blocks = {0};  ///< of every part of the pipeline
  int64_t working = 4;                  ///< bytes of an element of weights and activations
  int64_t reduced = 4;                  ///< of a gradient while it travels
  int64_t bucket_bytes = 25 << 20;
  bool average = false;  ///< a moving average is kept
  Offload offload = Offload::none;

  int64_t size(Axis axis) const;
  int64_t parts() const { return pipeline * chunks; }
  bool zigzag(const ModelFacts& facts) const {
    return context > 1 && method == ContextMethod::ring && facts.causal;
  }
};

/// What the recipe alone says: of one rank, with all of the batch as micro-batches.
Layout recipe_layout(const Recipe& recipe);
/// The recipe's layout; check_ranks() has passed, and `hosts` divides `ranks`.
Layout make_layout(const Recipe& recipe, const ModelFacts& facts, int64_t ranks, int64_t hosts);

/// One rank's share of a pipeline.
struct Stage {
  int64_t index = 0;
  int64_t blocks = 0;
  int64_t learning = 0;  ///< of them have a backward
  double trained = 0;    ///< blocks' worth of parameters that learn
  bool first = true, last = true;
  int64_t live = 1;  ///< most (chunk, micro-batch) between their forward and backward
};
Stage stage_of(const ModelFacts& facts, const Layout& layout, int64_t index);
/// Most (chunk, micro-batch) that are alive on a stage, as simulate() finds by carrying the table out.
int64_t peak_live(const Layout& layout, int64_t stage);

/// Sums over some parameters on one rank.
struct ParameterSum {
  int64_t elements = 0;  ///< of this rank's part of the tensor axis
  int64_t part = 0;      ///< its largest part of those on the shard axis, rows filled up
  int64_t unsplit = 0;   ///< of `part`: what the tensor axis does not divide
  int64_t count = 0;     ///< of parameters

  ParameterSum& operator+=(const ParameterSum& other);
};
ParameterSum sum_of(const std::vector<ParameterFacts>& parameters, const Layout& layout);
/// What a stage holds beside its blocks; of that, elements of the largest part on the shard axis that learn.
ParameterSum outer_sum(const ModelFacts& facts, const Layout& layout, const Stage& stage);
double outer_trained(const ModelFacts& facts, const Layout& layout, const Stage& stage);
/// The share of a stage's parameters that learn.
double trained_share(const ModelFacts& facts, const Layout& layout, const Stage& stage);

/// Rows [rows, hidden] of a micro-batch on one rank.
struct RowCounts {
  double inside = 0;     ///< of a layer that the tensor axis divides
  double own = 0;        ///< between layers
  double predicted = 0;  ///< for which there are logits
};
RowCounts count_rows(const ModelFacts& facts, const Layout& layout);

// ---- memory: plan_memory.cpp

/// Bytes of one rank at the height of a step.
struct Memory {
  int64_t stage = 0;
  double parameters = 0;  ///< elements that this rank steps
  double weights = 0;     ///< fp32 masters
  double working = 0;     ///< this rank's 16-bit copies
  double gathered = 0;    ///< whole parameters of sharded ones
  double gradients = 0;
  double optimizer = 0;
  double average = 0;
  double host = 0;  ///< beside all else: masters, state and parts that `offload` keeps in the host's memory
  double activations = 0;  ///< kept from forward to backward
  double logits = 0;
  double temporary = 0;     ///< what one block's backward, or the loss, needs for itself
  double total = 0;         ///< the most at any moment: not all of these are there at once
  const char* moment = "";  ///< when that is
};
Memory stage_memory(const ModelFacts& facts, const Layout& layout, const Stage& stage);
/// Of the stage that needs most.
Memory peak_memory(const ModelFacts& facts, const Layout& layout);
/// What one block keeps of a micro-batch for its backward (Korthikanti et al., "Reducing activation
/// recomputation in large transformer models", 2022, for what these blocks keep).
double block_activations(const ModelFacts& facts, const Layout& layout);

// ---- messages: plan_traffic.cpp

enum class Pattern { all_reduce, gather, scatter, all_to_all, send, receive };
/// What a message may travel beside.
enum class Hidden { nowhere, last_backward, all_backwards, all_compute, first_forward };

/// Messages of one kind in a step, on one rank.
struct Flow {
  const char* axis;
  const char* what;
  Pattern pattern;
  Hidden hidden;
  int64_t ranks;     ///< that take part
  int64_t per_host;  ///< of them on one host
  double times;      ///< per step
  double bytes;      ///< of the whole message

  /// That this rank sends, in one of them: all-reduce 2 (n - 1) / n of the message (log2 n times the message
  /// up to 32 KiB), reduce-scatter, all-gather and all-to-all (n - 1) / n, send all.
  double sent() const;
};
std::vector<Flow> step_traffic(const ModelFacts& facts, const Layout& layout, const Stage& stage);
double flow_seconds(const Flow& flow, const MachineFigures& machine);

// ---- seconds: plan_time.cpp

/// Of one step. The parts add up to the total.
struct StepTime {
  double compute = 0;
  double tensor = 0, context = 0;   ///< messages inside blocks: nothing to hide behind
  double bubble = 0;                ///< waiting for other stages
  double shard = 0, replicate = 0;  ///< what of gathers and reductions has nothing left to hide behind
  double optimizer = 0;
  double agreement = 0;  ///< small messages of all ranks
  double total = 0;
  double flops = 0;            ///< of all ranks, recomputation included
  std::string limits() const;  ///< the two largest parts: "compute 71 %, pipeline bubble 16 %"
};
/// `exact`: carries the pipeline's table out where it is not too long; otherwise the formulas for parts of
/// equal cost (Narayanan et al., "Efficient large-scale language model training on GPU clusters using
/// Megatron-LM", 2021).
StepTime step_time(const ModelFacts& facts, const Layout& layout, const MachineFigures& machine, bool exact);

struct Forecast {
  Layout layout;
  Memory memory;
  StepTime time;
  std::vector<Flow> traffic;  ///< of the stage that sends most
  int64_t traffic_stage = 0;
};
Forecast make_forecast(const ModelFacts& facts, const Layout& layout, const MachineFigures& machine);

}  // namespace tessera
