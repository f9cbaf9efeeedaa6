#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

#include "trainer/packing.h"

namespace tessera {

/// One micro-batch, padded to a rectangle: what objectives collate and models read. Undefined tensors mean
/// "none".
struct Batch {
  at::Tensor tokens;    ///< [batch, sequence] int64
  at::Tensor segments;  ///< [batch, sequence] int64, sentence A/B; undefined where all are 0
  at::Tensor
      attention_mask;  ///< [batch, sequence] bool, true = a real token; undefined where nothing is padding
  at::Tensor label_positions;  ///< [n] int64, indices into batch * sequence; undefined: all of them, in order
  at::Tensor labels;  ///< [n] int64 token ids or classes; negative where nothing is predicted (filling up n)
  at::Tensor
      targets;  ///< [n, outputs] float32: what a task's outputs should be; undefined where labels say it
  at::Tensor next_sentence;  ///< [batch] int64, 0 = really follows, 1 = random; undefined where the objective
                             ///< has none
  at::Tensor samples;        ///< [batch] int64 global sample indices: dropout depends on them
  std::vector<int64_t>
      counts;  ///< predictions in this batch, one per loss term, in the order of Objective::terms()
  int64_t num_tokens = 0;      ///< tokens that are not padding
  int64_t first_position = 0;  ///< position of tokens[:, 0] in its sequence
  at::Tensor positions;  ///< [sequence] int64, where they are not first_position, first_position + 1, …
  Packing packing;       ///< of attention_mask

  int64_t batch() const { return tokens.size(0); }
  int64_t sequence() const { return tokens.size(1); }
  /// Every one, defined or not; packing's too.
  std::array<at::Tensor*, 13> tensors();
  /// The same batch in page-locked memory of the host.
  Batch pinned() const;
  /// The same batch with its tensors on `device`, as to_device() brings them.
  Batch to(const at::Device& device) const;
};

/// The tensor on `device`; to a GPU it goes from page-locked memory, beside what the host does.
at::Tensor to_device(const at::Tensor& tensor, const at::Device& device);

/// What hidden dropout depends on beside the sample, the position and the site. A pure function of these: any
/// layout, any split into micro-batches and any number of threads drop the same elements.
struct DropoutState {
  uint64_t seed = 0;
  int64_t step = 0;
  bool enabled = false;  ///< false: no dropout at all (evaluation)
};

}  // namespace tessera
