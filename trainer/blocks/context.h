#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "parallel/context_attention.h"
#include "trainer/batch.h"
#include "trainer/blocks/functions.h"

namespace tessera {

/// Keys and values of the positions seen so far, for generation: one pair of tensors per layer.
struct KeyValueCache {
  std::vector<at::Tensor> keys, values;  ///< [batch, heads, max_positions, head_size] each
  int64_t length = 0;                    ///< positions filled so far; the model advances it
  at::Tensor padding;  ///< [batch] int64: left padding of each row (its first real token has position 0); may
                       ///< be undefined
};

/// What blocks need to know about the batch beside its hidden states [batch * sequence, hidden]. Where ranks
/// divide layers and positions among them, `sequence` are this rank's own rows of a sample.
struct Context {
  int64_t batch = 0;
  int64_t sequence = 0;
  int64_t first_position = 0;
  at::Tensor positions;         ///< [sequence] int64; undefined: first_position, first_position + 1, …
  at::Tensor positions_inside;  ///< the same of sequence_inside() rows
  at::Tensor attention_bias;  ///< [batch, 1, queries or 1, keys], added to the scores, in the data's type; or
                              ///< undefined
  Packing packing;            ///< of the same padding; not defined: none is known
  at::Tensor samples;         ///< [batch] int64; only read where dropout is enabled
  DropoutState dropout;
  KeyValueCache* cache = nullptr;
  const TensorSplit* split = nullptr;    ///< null: layers are whole
  const ContextSplit* across = nullptr;  ///< null: sequences are whole
  at::Tensor key_mask;  ///< [batch, whole sequence] bool, where `across`; undefined: attend to all

  /// Rows of a sample inside of a divided layer.
  int64_t sequence_inside() const { return split ? sequence * split->size() : sequence; }
  /// For joined_linear(): into a divided layer.
  ops::SplitRows inside() const { return {split, batch}; }
  /// Out of a divided layer: own rows of the sum of what the ranks have of all rows.
  at::Tensor leave(const at::Tensor& addend) const { return split ? split->sum(addend, batch) : addend; }
  /// This rank's columns of [batch, sequence_inside()].
  at::Tensor own_columns(const at::Tensor& per_token) const;
  /// Rows of a table of positions: [sequence, hidden].
  at::Tensor position_rows(const at::Tensor& table) const;

  /// The dropout of one site. `site` is hash_name() of the full name of the module.
  DropoutSite dropout_site(uint64_t site, double probability) const;
  /// The same inside of a divided layer, where this rank has `columns` of each row.
  DropoutSite dropout_site_inside(uint64_t site, double probability, int64_t columns) const;
};

}  // namespace tessera
