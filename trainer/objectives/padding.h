#pragma once
#include <vector>

#include "trainer/batch.h"

namespace tessera {

/// Rows of different lengths -> Batch with tokens, segments (where any row has them), samples, attention_mask
/// (where any row is padded) and num_tokens. Width: the longest row, rounded up to a multiple of 32 where
/// rows differ (few different shapes keep the matrix library's cache of compiled products small).
struct Row {
  int64_t sample = 0;
  const std::vector<int32_t>* tokens = nullptr;
  const std::vector<int32_t>* segments = nullptr;  ///< empty: all 0
};
Batch pad_rows(const std::vector<Row>& rows, int64_t longest_allowed, int32_t pad);

/// A [values.size()] int64 tensor.
at::Tensor index_tensor(const std::vector<int64_t>& values);

/// Sets the batch's label_positions, labels and the count of predictions, filled up to a multiple of 32 with
/// rows that predict nothing (few shapes, as above).
void set_labels(Batch& batch, std::vector<int64_t> positions, std::vector<int64_t> labels);

/// [n, columns] filled up with zeros to `rows`.
at::Tensor with_rows(const at::Tensor& matrix, int64_t rows);

}  // namespace tessera
