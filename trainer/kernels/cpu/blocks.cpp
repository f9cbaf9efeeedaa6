#include "trainer/kernels/cpu/blocks.h"

#include <ATen/Parallel.h>

#include <algorithm>

#include "trainer/kernels/cpu/loops.h"

namespace tessera::blocks {

void load(const void* source, at::ScalarType type, float* destination, int64_t count, float scale) {
  if (type == at::kBFloat16) return loops::load_bfloat16(source, destination, count, scale);
  if (type == at::kHalf) return loops::load_half(source, destination, count, scale);
  TORCH_INTERNAL_ASSERT(type == at::kFloat);
  loops::load_float(static_cast<const float*>(source), destination, count, scale);
}

void store(const float* source, void* destination, at::ScalarType type, int64_t count) {
  if (type == at::kFloat) {
    std::copy_n(source, count, static_cast<float*>(destination));
    return;
  }
  if (type == at::kBFloat16) return loops::store_bfloat16(source, destination, count);
  TORCH_INTERNAL_ASSERT(type == at::kHalf);
  loops::store_half(source, destination, count);
}

std::vector<Span> make_spans(const std::vector<int64_t>& sizes) {
  constexpr int64_t length = 8 * block_size;
  std::vector<Span> spans;
  for (size_t tensor = 0; tensor < sizes.size(); ++tensor) {
    for (int64_t offset = 0; offset < sizes[tensor]; offset += length) {
      spans.push_back({static_cast<int32_t>(tensor), offset, std::min(length, sizes[tensor] - offset)});
    }
  }
  return spans;
}

void for_each_span(const std::vector<Span>& spans, const std::function<void(const Span&, int64_t)>& body) {
  at::parallel_for(0, static_cast<int64_t>(spans.size()), 2, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(spans[static_cast<size_t>(i)], i);
  });
}

}  // namespace tessera::blocks
