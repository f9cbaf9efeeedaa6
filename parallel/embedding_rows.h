#pragma once
#include <ATen/core/Tensor.h>

namespace tessera {

/// Rows of a table: table [rows, hidden], indices [n] int64 -> [n, hidden], differentiable in the table; its
/// gradient adds up in a fixed order on every device.
at::Tensor embedding_rows(const at::Tensor& table, const at::Tensor& indices);

/// How many rows are looked up for n of them on a GPU, the others being the first, with a gradient of 0:
/// LibTorch 2.11 takes 1,025 to 3,072 indices in stretches of 1,024 without waiting between them (pytorch
/// pull request 187687), so that the gradient of the table is wrong now and then; more it sorts.
int64_t num_lookups(int64_t n);

/// The same with so many lookups.
at::Tensor embedding_rows(const at::Tensor& table, const at::Tensor& indices, int64_t lookups);

}  // namespace tessera
