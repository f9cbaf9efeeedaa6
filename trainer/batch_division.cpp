#include "trainer/batch_division.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "trainer/objectives/padding.h"

namespace tessera {
namespace {

at::Tensor with_columns(const at::Tensor& rows, int64_t columns) {
  return rows.defined() ? at::constant_pad_nd(rows, {0, columns - rows.size(1)}) : rows;
}

/// Labels of all positions get theirs written down, since columns come and go.
void write_down_positions(Batch& batch) {
  if (!batch.labels.defined() || batch.label_positions.defined()) return;
  batch.label_positions = at::arange(batch.labels.size(0), at::kLong);
}

void fill_up(Batch& batch, int64_t columns) {
  const int64_t before = batch.sequence();
  if (columns == before) return;
  write_down_positions(batch);
  batch.tokens = with_columns(batch.tokens, columns);
  batch.segments = with_columns(batch.segments, columns);
  if (!batch.attention_mask.defined()) {
    batch.attention_mask = at::ones({batch.batch(), before}, at::kBool);
  }
  batch.attention_mask = with_columns(batch.attention_mask, columns);
  if (!batch.label_positions.defined()) return;
  batch.label_positions =
      batch.label_positions.floor_divide(before) * columns + batch.label_positions.remainder(before);
}

void keep_labels(Batch& batch, const std::vector<int64_t>& positions, int64_t columns) {
  if (!batch.labels.defined()) return;
  write_down_positions(batch);
  std::vector<int64_t> place(static_cast<size_t>(columns), -1), kept, labels, rows;
  for (size_t i = 0; i < positions.size(); ++i)
    place[static_cast<size_t>(positions[i])] = static_cast<int64_t>(i);
  const auto* at = batch.label_positions.const_data_ptr<int64_t>();
  const auto* label = batch.labels.const_data_ptr<int64_t>();
  const auto width = static_cast<int64_t>(positions.size());
  for (int64_t i = 0; i < batch.labels.size(0); ++i) {
    const int64_t column = place[static_cast<size_t>(at[i] % columns)];
    if (label[i] < 0 || column < 0) continue;
    kept.push_back(at[i] / columns * width + column);
    labels.push_back(label[i]);
    rows.push_back(i);
  }
  const std::vector<int64_t> others(batch.counts.begin() + 1, batch.counts.end());
  set_labels(batch, std::move(kept), std::move(labels));
  if (batch.targets.defined()) {
    batch.targets = with_rows(batch.targets.index_select(0, index_tensor(rows)), batch.labels.size(0));
  }
  batch.counts.insert(batch.counts.end(), others.begin(), others.end());
}

void keep_columns(Batch& batch, const std::vector<int64_t>& positions) {
  const int64_t columns = batch.sequence();
  const bool has_first = std::find(positions.begin(), positions.end(), 0) != positions.end();
  keep_labels(batch, positions, columns);
  batch.positions = index_tensor(positions);
  batch.tokens = batch.tokens.index_select(1, batch.positions);
  if (batch.segments.defined()) batch.segments = batch.segments.index_select(1, batch.positions);
  if (has_first) return;
  // Whoever has the first positions speaks for whole samples.
  batch.num_tokens = 0;
  if (!batch.next_sentence.defined()) return;
  batch.next_sentence = at::Tensor();
  batch.counts.back() = 0;
}

}  // namespace

Batch divide(Batch batch, const BatchDivision& division) {
  const int64_t least = std::max(batch.sequence(), division.columns);
  const int64_t columns = (least + division.multiple - 1) / division.multiple * division.multiple;
  fill_up(batch, columns);
  if (division.positions) {
    keep_columns(batch, division.positions(columns));
  } else {
    batch.packing = pack(batch.attention_mask);
  }
  return batch;
}

}  // namespace tessera
