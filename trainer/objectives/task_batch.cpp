#include "trainer/objectives/task_batch.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "trainer/objectives/padding.h"

namespace tessera {

Batch collate_rows(const std::vector<Example>& examples, const ObjectiveSetting& setting) {
  std::vector<Row> rows;
  for (const Example& example : examples) rows.push_back({example.index, &example.tokens, &example.segments});
  Batch batch = pad_rows(rows, setting.sequence_length, std::max(0, setting.tokenizer->special().pad));
  if (setting.causal) batch.attention_mask = at::Tensor();
  return batch;
}

void label_rows(Batch& batch, const std::vector<Example>& rows, std::vector<int64_t> labels,
                const ObjectiveSetting& setting) {
  std::vector<int64_t> positions;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto length = static_cast<int64_t>(rows[i].tokens.size());
    positions.push_back(static_cast<int64_t>(i) * batch.sequence() + (setting.causal ? length - 1 : 0));
  }
  set_labels(batch, std::move(positions), std::move(labels));
}

at::Tensor widened(const at::Tensor& logits) {
  return logits.to(at::promote_types(logits.scalar_type(), at::kFloat));
}

LossTerms class_loss(const at::Tensor& logits, const at::Tensor& labels) {
  const at::Tensor wide = widened(logits);
  const at::Tensor sum = at::cross_entropy_loss(wide, labels, {}, at::Reduction::Sum, /*ignore_index=*/-1);
  const at::Tensor correct = wide.detach().argmax(1).eq(labels).sum().to(at::kFloat);
  return {sum.unsqueeze(0), correct.unsqueeze(0), wide.detach()};
}

LabelledRows labelled_rows(const Batch& batch) {
  LabelledRows labelled;
  labelled.rows = batch.labels.ge(0).nonzero().view(-1);
  const at::Tensor places = batch.label_positions.index_select(0, labelled.rows);
  const int64_t width = batch.sequence();
  labelled.samples = batch.samples.index_select(0, places.floor_divide(width));
  const at::Tensor columns = places.remainder(width);
  labelled.positions = batch.positions.defined() ? batch.positions.index_select(0, columns) : columns;
  return labelled;
}

at::Tensor columns_of(const std::vector<at::Tensor>& parts) {
  std::vector<at::Tensor> columns;
  for (const at::Tensor& part : parts) {
    const at::Tensor values = part.to(at::kCPU, at::kDouble);
    columns.push_back(values.dim() == 1 ? values.unsqueeze(1) : values);
  }
  return at::cat(columns, 1);
}

std::vector<double> row_of(const at::Tensor& matrix, int64_t row) {
  const at::Tensor values = matrix[row].contiguous();
  return {values.const_data_ptr<double>(), values.const_data_ptr<double>() + values.numel()};
}

std::vector<int64_t> whole_column(const at::Tensor& matrix, int64_t column) {
  const at::Tensor values = matrix.select(1, column).to(at::kLong).contiguous();
  return {values.const_data_ptr<int64_t>(), values.const_data_ptr<int64_t>() + values.numel()};
}

}  // namespace tessera
