#pragma once
#include <string>
#include <vector>

#include "trainer/objective.h"
#include "trainer/objectives/objectives.h"

namespace tessera {

/// Examples as rows, padded at the end; a causal model needs no mask there.
Batch collate_rows(const std::vector<Example>& examples, const ObjectiveSetting& setting);

/// Gives each row of collate_rows() one label: at its first token, or at its last where the model is causal
/// and only that has seen all of it.
void label_rows(Batch& batch, const std::vector<Example>& rows, std::vector<int64_t> labels,
                const ObjectiveSetting& setting);

/// Logits [n, classes] against labels [n] (negative: nothing to predict): the sum of the cross-entropies, and
/// the logits as outputs.
LossTerms class_loss(const at::Tensor& logits, const at::Tensor& labels);

/// In float32 at least.
at::Tensor widened(const at::Tensor& logits);

/// The labelled rows of a batch on the CPU: where they are, and whose.
struct LabelledRows {
  at::Tensor rows;       ///< [n] int64, into the batch's labels
  at::Tensor samples;    ///< [n] int64
  at::Tensor positions;  ///< [n] int64, in the sample
};
LabelledRows labelled_rows(const Batch& batch);

/// [n, columns] float64 on the CPU from tensors [n] or [n, some] of any type and device.
at::Tensor columns_of(const std::vector<at::Tensor>& parts);

/// One row of a float64 matrix on the CPU.
std::vector<double> row_of(const at::Tensor& matrix, int64_t row);
std::vector<int64_t> whole_column(const at::Tensor& matrix, int64_t column);

}  // namespace tessera
