#include "parallel/context_layout.h"

#include <ATen/Functions.h>
#include <fmt/format.h>

namespace tessera {
namespace {

struct Run {
  int64_t begin, length;
};

std::vector<Run> context_runs(int64_t sequence, int rank, int size, bool zigzag) {
  const int64_t chunks = zigzag && size > 1 ? 2 * size : size;
  if (sequence % chunks != 0)
    throw std::logic_error(fmt::format("{} positions do not make {} equal chunks", sequence, chunks));
  const int64_t length = sequence / chunks;
  if (chunks == size) return {{rank * length, length}};
  return {{rank * length, length}, {(chunks - 1 - rank) * length, length}};
}

}  // namespace

std::vector<int64_t> context_positions(int64_t sequence, int rank, int size, bool zigzag) {
  std::vector<int64_t> positions;
  for (const Run& run : context_runs(sequence, rank, size, zigzag)) {
    for (int64_t i = 0; i < run.length; ++i) positions.push_back(run.begin + i);
  }
  return positions;
}

at::Tensor context_part(const at::Tensor& whole, int64_t dim, int rank, int size, bool zigzag) {
  // Slices, not an index: an index would have to be copied to a GPU first.
  std::vector<at::Tensor> parts;
  for (const Run& run : context_runs(whole.size(dim), rank, size, zigzag))
    parts.push_back(whole.narrow(dim, run.begin, run.length));
  return parts.size() == 1 ? parts[0] : at::cat(parts, dim);
}

}  // namespace tessera
