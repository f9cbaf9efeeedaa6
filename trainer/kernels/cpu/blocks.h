#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

/// Element-wise passes over many tensors on the CPU: short blocks that stay in the first-level cache are
/// converted to float32, worked on (loops.h) and converted back, so that memory is passed once whatever the
/// types.
namespace tessera::blocks {

constexpr int64_t block_size = 2048;  ///< elements: 8 KiB of float32

/// destination[i] = source[i] * scale, for float32, bfloat16 and float16 sources.
void load(const void* source, at::ScalarType type, float* destination, int64_t count, float scale);
/// destination[i] = source[i], rounded to nearest even, for the same types.
void store(const float* source, void* destination, at::ScalarType type, int64_t count);

/// A stretch of one tensor of a list: at most 8 blocks long.
struct Span {
  int32_t tensor;
  int64_t offset;
  int64_t count;
};
/// Cuts tensors of these sizes into spans, so that many small tensors and few large ones spread over threads
/// alike.
std::vector<Span> make_spans(const std::vector<int64_t>& sizes);

/// Calls `body(span, index)` for all spans, over the threads of ATen's pool.
void for_each_span(const std::vector<Span>& spans, const std::function<void(const Span&, int64_t)>& body);

}  // namespace tessera::blocks
