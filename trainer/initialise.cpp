#include "trainer/initialise.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <numbers>

#include "recipes/random.h"

namespace tessera {
namespace {

std::array<float, 4> four_normals(uint64_t group, uint64_t key) {
  const auto bits = philox({static_cast<uint32_t>(group), static_cast<uint32_t>(group >> 32), 0, 0},
                           {static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)});
  std::array<float, 4> normals;
  for (size_t i = 0; i < 4; i += 2) {
    // The radius needs a number in (0, 1], the angle one in [0, 1).
    const float radius = std::sqrt(-2 * std::log((static_cast<float>(bits[i] >> 8) + 1) * 0x1p-24f));
    const float angle = 2 * std::numbers::pi_v<float> * static_cast<float>(bits[i + 1] >> 8) * 0x1p-24f;
    normals[i] = radius * std::cos(angle);
    normals[i + 1] = radius * std::sin(angle);
  }
  return normals;
}

void fill_run(float* out, int64_t count, int64_t first, uint64_t key, float deviation) {
  std::array<float, 4> normals{};
  for (int64_t i = 0; i < count; ++i) {
    const auto element = static_cast<uint64_t>(first + i);
    if (i == 0 || element % 4 == 0) normals = four_normals(element / 4, key);
    out[i] = normals[element % 4] * deviation;
  }
}

}  // namespace

void fill_normal(at::Tensor& slice, uint64_t key, at::IntArrayRef global_shape, at::IntArrayRef offset,
                 double deviation) {
  if (slice.numel() == 0) return;
  // A rectangle is a set of runs along the last dim; `start(run)` is the number of a run's first element in
  // the whole.
  const int64_t width = slice.size(-1), runs = slice.numel() / width, dims = slice.dim();
  const auto start = [&](int64_t run) {
    int64_t element = offset[dims - 1], stride = global_shape[dims - 1];
    for (int64_t dim = dims - 2; dim >= 0; --dim) {
      element += (offset[dim] + run % slice.size(dim)) * stride;
      run /= slice.size(dim);
      stride *= global_shape[dim];
    }
    return element;
  };
  at::Tensor values = at::empty(slice.sizes(), at::kFloat);
  float* data = values.data_ptr<float>();
  at::parallel_for(0, runs, 1 + 4096 / width, [&](int64_t begin, int64_t end) {
    for (int64_t run = begin; run < end; ++run) {
      fill_run(data + run * width, width, start(run), key, static_cast<float>(deviation));
    }
  });
  slice.copy_(values);
}

}  // namespace tessera
