#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "parallel/communicator.h"
#include "parallel/strategy.h"

namespace tessera {

struct ReplicateOptions {
  int64_t bucket_bytes = 16 << 20;
  /// The type in which gradients are summed over ranks; Undefined: that in which they are accumulated.
  at::ScalarType reduce_dtype = at::ScalarType::Undefined;
  /// Accumulate 16-bit gradients of several micro-steps in float32.
  bool accumulate_fp32 = true;
  /// The same ranks for CPU tensors, where the communicator's tensors live elsewhere.
  std::optional<Communicator> host = {};
};

/// Sums gradients over the replicas while backward still runs. Each parameter's gradient is handed over as
/// soon as autograd has it and copied into a bucket; a full bucket is all-reduced, on the last micro-step of
/// a step only. The buckets follow the order in which gradients appeared in the first step on rank 0. Ranks
/// may use different parameters: who has no gradient contributes zeros. With one rank nothing is copied or
/// sent. All ranks hold, and step, all parameters.
class Replicate : public Strategy {
 public:
  /// Keeps the parameters that require a gradient, each once (tied ones appear twice in a module's list).
  Replicate(const std::vector<NamedParameter>& parameters, Communicator communicator,
            ReplicateOptions options = {});
  ~Replicate() override;  ///< takes its hooks off the parameters

  const std::vector<NamedParameter>& parameters() const { return parameters_; }

  void begin_step() override;
  void begin_micro_step(bool last) override;
  std::vector<at::Tensor> finish() override;                   ///< one per entry of parameters()
  std::vector<MessageStatistics> statistics() const override;  ///< one per bucket

 private:
  struct Hook;
  struct Slot {           // of a parameter
    at::ScalarType type;  // of its sum
    at::Tensor sum;       // a view of its bucket; with one rank an accumulator of its own, or undefined
    size_t bucket = 0;
    int fires = 0;           // of its hook in this micro-step
    int expected_fires = 1;  // learnt in the first step: recomputing autograd functions may bring it in parts
    bool touched = false;    // this step
  };
  struct Bucket {
    at::Tensor flat;
    std::vector<size_t> slots;
    size_t num_ready = 0;
    at::Tensor message;  // what travels: `flat`, or a copy of it in reduce_dtype
    Work work;
    double exposed = 0;
  };

  void on_gradient(size_t index);
  void add(Slot& slot, at::Tensor& gradient);
  void build_buckets(const std::vector<int64_t>& order);
  void learn_order();
  void launch_ready();
  void launch(Bucket& bucket);
  void wait(Bucket& bucket);
  std::vector<bool> used_anywhere();
  std::vector<at::Tensor> finish_alone();

  std::vector<NamedParameter> parameters_;
  Communicator communicator_;
  ReplicateOptions options_;
  std::vector<Slot> slots_;
  std::vector<Bucket> buckets_;
  std::vector<int64_t> order_;  // of readiness, in the first step
  size_t num_launched_ = 0;
  int num_micro_steps_ = 0;
  bool last_ = false;
  bool first_step_ = true;
};

}  // namespace tessera
