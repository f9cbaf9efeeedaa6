#pragma once
#include <algorithm>
#include <deque>

#include "parallel/communicator.h"
#include "parallel/strategy.h"
#include "recipes/parallel_kinds.h"

namespace tessera {

/// A parameter of a module without memory, each once, and the unit to which it belongs: units are gathered
/// whole; 0 is needed all the time (tied parameters too), i + 1 in block i only. Whether it requires a
/// gradient is looked at once: frozen ones are gathered like the others, and no gradient of theirs travels.
struct UnitParameter {
  std::string name;
  at::Tensor tensor;
  size_t unit = 0;
  int chunk = 0;  ///< of a pipeline stage; all parameters of a unit belong to one
};

struct ShardOptions {
  int zero = 3;          ///< ZeRO stage: 1 shards optimizer state, 2 also gradients, 3 also parameters
  int64_t prefetch = 1;  ///< units that are gathered ahead of their use
  /// `optimizer`: masters are in the host's memory; `parameters` (stage 3): the working parts too.
  Offload offload = Offload::none;
  at::ScalarType working = at::kFloat;  ///< of the module's parameters
  /// The type in which gradients are summed over ranks; Undefined: float32 (float64 for that working type).
  at::ScalarType reduce_dtype = at::ScalarType::Undefined;
  Communicator shard;     ///< the ranks that divide everything among them; on the device of the parameters
  Communicator replicas;  ///< those that hold the same part, and see other samples
  Communicator host;      ///< all of both, for CPU tensors
};

/// Shards parameters, gradients and optimizer state (Rajbhandari et al., "ZeRO", 2020): of each parameter a
/// rank keeps ceil(rows / ranks) rows of dim 0 (the last ranks fewer, or none). A unit's parts travel as one
/// message. Stage 3 gathers a unit just before its forward and again before its backward, `prefetch` units
/// ahead, and frees it after; stages 1 and 2 keep parameters whole and gather the trained ones once per step.
/// Gradients are reduce-scattered unit by unit while backward goes on (stage 1: on the last micro-step only),
/// then summed over the replicas.
class Shard : public Strategy {
 public:
  /// The tensors become of the working type, on the shard communicator's device, their memory the strategy's.
  Shard(const std::vector<UnitParameter>& parameters, ShardOptions options);
  ~Shard() override;

  /// This rank's rows of each parameter, in the order given, frozen ones too: somebody must set their values.
  struct Part {
    int64_t first_row = 0;
    at::Tensor working;  ///< [rows, …]; of a 0-dim parameter [] on the first rank, [0] on others
    at::Tensor master;   ///< the same in float32; `working` itself where that is float32, or frozen
    bool trained = true;
  };
  const std::vector<Part>& parts() const { return parts_; }

  void begin_step() override;
  void select_chunk(int chunk) override { chunk_ = chunk; }
  void begin_micro_step(bool last) override;
  void end_micro_step() override;
  std::vector<at::Tensor> finish() override;  ///< one per trained part, in their order
  void settle() override;
  void parameters_changed() override;
  void parameters_loaded() override;
  at::Tensor enter(size_t unit, const at::Tensor& hidden) override;
  at::Tensor leave(size_t unit, const at::Tensor& hidden) override;
  std::vector<MessageStatistics> statistics() const override;

  /// Elements of all ranks' parts of a unit together: what its gathers carry.
  int64_t gather_size(size_t unit) const { return units_[unit].part * ranks_; }
  /// The same of its trained parameters: what its sums of gradients carry.
  int64_t reduce_size(size_t unit) const { return units_[unit].trained_part * ranks_; }

 private:
  struct Member {
    size_t index;  // in parts_
    std::string name;
    at::Tensor tensor;
    int64_t rows = 0, width = 0, part_rows = 0;
    int64_t in_part = 0, in_whole = 0;  // first element
    bool touched = false;               // had a gradient in this step

    int64_t first_row(int rank) const { return std::min(rows, rank * part_rows); }
    int64_t num_rows(int rank) const { return first_row(rank + 1) - first_row(rank); }
    // The same in elements, and of every rank's part, filled or not.
    int64_t first(int rank) const { return first_row(rank) * width; }
    int64_t size(int rank) const { return num_rows(rank) * width; }
    int64_t part_size() const { return part_rows * width; }
  };
  struct Log {  // of a kind of message in this step
    int64_t bytes = 0;
    double exposed = 0;
    std::vector<Work> works;
    void wait(const Work& work, const at::Tensor& message);
    MessageStatistics statistics(bool gather) const;
  };
  struct Unit {
    std::vector<Member> members;  // the trained ones first: gradients are the beginning of the parts
    size_t num_trained = 0;
    int chunk = 0;
    int64_t part = 0, trained_part = 0, whole = 0;  // elements
    at::Tensor mine;                                // [part] of the working type
    at::Tensor sent;                                // of `mine`, on the device, while it is gathered
    at::Tensor gathered;       // [ranks * part] while it is under way, or of the trained parts only
    at::Tensor memory;         // [whole]: where the members' tensors lie, while they are there
    bool stale = true;         // the trained part of `mine` has changed since
    bool frozen_stale = true;  // all of it has
    Work gather;
    at::Tensor message;   // [ranks * trained_part] of gradients; stage 1 keeps it through the step
    at::Tensor reduced;   // [trained_part], while it is under way
    at::Tensor gradient;  // [trained_part]: the sum
    bool has_gradient = false;
    bool collected = false;  // in this micro-step
    bool is_last = false;    // the reduction under way is the step's last
    Work reduce, replicate;
    Log gathers, reduces;
  };

  void add_member(Unit& unit, const UnitParameter& parameter, size_t index);
  void build_unit(Unit& unit, const at::TensorOptions& options);
  void build_part(const Unit& unit, const Member& member, const at::Tensor& masters);
  void lend(const Unit& unit, const Member& member) const;
  bool keeps(const Unit& unit) const { return options_.zero < 3 || &unit == &units_.front(); }
  void start_gather(Unit& unit);
  void need(size_t unit);
  void prefetch(size_t from, int direction);
  void place(Unit& unit);
  void release(Unit& unit);
  void pack(Unit& unit);
  void collect(Unit& unit);
  void reduce(Unit& unit);
  void absorb(size_t keep = 0);
  void absorb(Unit& unit);
  std::vector<bool> used_anywhere() const;

  ShardOptions options_;
  int ranks_;
  at::ScalarType sum_type_, reduce_type_;
  std::vector<Unit> units_;
  std::vector<Part> parts_;
  std::deque<Unit*> reducing_;  // in the order of their start
  int chunk_ = 0;               // whose backward it is
  bool last_ = false;
};

}  // namespace tessera
