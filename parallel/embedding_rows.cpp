#include "parallel/embedding_rows.h"

#include <ATen/Functions.h>

namespace tessera {

at::Tensor embedding_rows(const at::Tensor& table, const at::Tensor& indices) {
  const int64_t n = indices.size(0);
  return embedding_rows(table, indices, table.is_cuda() ? num_lookups(n) : n);
}

int64_t num_lookups(int64_t n) {
  constexpr int64_t stretch = 1024, most_unsorted = 3072;
  return n > stretch && n <= most_unsorted ? most_unsorted + 1 : n;
}

at::Tensor embedding_rows(const at::Tensor& table, const at::Tensor& indices, int64_t lookups) {
  const int64_t n = indices.size(0);
  if (lookups == n) return at::embedding(table, indices);
  return at::embedding(table, at::constant_pad_nd(indices, {0, lookups - n})).narrow(0, 0, n);
}

}  // namespace tessera
