#include "trainer/name_map.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "recipes/error.h"

namespace tessera {

at::Tensor to_hugging_face(const HuggingFaceTensor& entry, const TensorByName& ours) {
  std::vector<at::Tensor> parts;
  for (const std::string& name : entry.names) parts.push_back(ours(name).detach());
  const at::Tensor joined = parts.size() == 1 ? parts.front() : at::cat(parts);
  return entry.transposed ? joined.t().contiguous() : joined.contiguous();
}

void from_hugging_face(const HuggingFaceTensor& entry, const at::Tensor& theirs, const TensorByName& ours) {
  const at::Tensor joined = entry.transposed && theirs.dim() == 2 ? theirs.t() : theirs;
  std::vector<int64_t> expected;
  int64_t rows = 0;
  for (const std::string& name : entry.names) {
    expected = ours(name).sizes().vec();
    rows += expected.at(0);
  }
  expected.at(0) = rows;
  if (joined.sizes() != at::IntArrayRef(expected)) {
    if (entry.transposed) std::reverse(expected.begin(), expected.end());
    throw Error(
        fmt::format("{}: has shape {}, but the model needs {}", entry.key, theirs.sizes().vec(), expected));
  }
  int64_t row = 0;
  for (const std::string& name : entry.names) {
    at::Tensor part = ours(name).detach();
    part.copy_(joined.slice(0, row, row + part.size(0)));
    row += part.size(0);
  }
}

}  // namespace tessera
