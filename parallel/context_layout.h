#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace tessera {

/// Which positions of a sequence of `sequence` tokens a rank holds, ascending. zigzag: chunks `rank` and
/// 2 * size - 1 - rank of 2 * size equal chunks, so that every rank has the same work under a causal mask;
/// otherwise the rank-th of `size` equal chunks. Throws std::logic_error where the chunks are not equal.
std::vector<int64_t> context_positions(int64_t sequence, int rank, int size, bool zigzag);

/// The same positions of `whole` along `dim`. A view where they are one run, a copy otherwise.
at::Tensor context_part(const at::Tensor& whole, int64_t dim, int rank, int size, bool zigzag);

}  // namespace tessera
