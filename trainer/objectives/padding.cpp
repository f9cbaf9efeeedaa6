#include "trainer/objectives/padding.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace tessera {
namespace {

// Few different shapes keep the matrix library's cache of compiled products small.
int64_t rounded_up(int64_t size) { return (size + 31) / 32 * 32; }

}  // namespace

at::Tensor index_tensor(const std::vector<int64_t>& values) {
  at::Tensor tensor = at::empty({static_cast<int64_t>(values.size())}, at::kLong);
  std::copy(values.begin(), values.end(), tensor.data_ptr<int64_t>());
  return tensor;
}

void set_labels(Batch& batch, std::vector<int64_t> positions, std::vector<int64_t> labels) {
  batch.counts = {static_cast<int64_t>(labels.size())};
  const auto filled = static_cast<size_t>(rounded_up(batch.counts[0]));
  positions.resize(filled, 0);
  labels.resize(filled, -1);
  batch.label_positions = index_tensor(positions);
  batch.labels = index_tensor(labels);
}

at::Tensor with_rows(const at::Tensor& matrix, int64_t rows) {
  return at::constant_pad_nd(matrix, {0, 0, 0, rows - matrix.size(0)});
}

Batch pad_rows(const std::vector<Row>& rows, int64_t longest_allowed, int32_t pad) {
  const auto length = [&](const Row& row) { return std::min<int64_t>(row.tokens->size(), longest_allowed); };
  int64_t width = 0;
  Batch batch;
  bool segments = false;
  for (const Row& row : rows) {
    width = std::max(width, length(row));
    batch.num_tokens += length(row);
    segments = segments || !row.segments->empty();
  }
  const auto count = static_cast<int64_t>(rows.size());
  const bool padded = batch.num_tokens < count * width;
  if (padded) width = std::min(rounded_up(width), std::max(width, longest_allowed));
  batch.tokens = at::full({count, width}, static_cast<int64_t>(pad), at::kLong);
  batch.samples = at::empty({count}, at::kLong);
  if (segments) batch.segments = at::zeros({count, width}, at::kLong);
  if (padded) batch.attention_mask = at::zeros({count, width}, at::kBool);
  for (int64_t i = 0; i < count; ++i) {
    const Row& row = rows[static_cast<size_t>(i)];
    batch.samples.data_ptr<int64_t>()[i] = row.sample;
    std::copy_n(row.tokens->begin(), length(row), batch.tokens.data_ptr<int64_t>() + i * width);
    if (padded) std::fill_n(batch.attention_mask.data_ptr<bool>() + i * width, length(row), true);
    if (row.segments->empty()) continue;
    std::copy_n(row.segments->begin(), std::min<int64_t>(length(row), row.segments->size()),
                batch.segments.data_ptr<int64_t>() + i * width);
  }
  return batch;
}

}  // namespace tessera
