#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <cfloat>

#include "trainer/kernels/cuda/model_kernels.h"
#include "trainer/kernels/cuda/rows.cuh"

namespace tessera::cuda {
namespace {

template <class T>
struct Logits {
  T* data;
  const T* bias;
  const int64_t* labels;
  float *losses, *correct;
  int64_t stride;
  int width;
};

// A block's row: 16-byte packs from the first address that allows them, single elements before and after. A thread
// meets the same elements every time, so that none reads what another wrote. Kept: from shared memory after the first.
template <class T, bool Kept>
struct Row {
  static constexpr int size = pack_size<T>;
  T* data;
  const T* bias;
  T* kept;
  int width, head, packs;

  __device__ Row(const Logits<T>& logits, int64_t row)
      : data(logits.data + row * logits.stride), bias(logits.bias), width(logits.width) {
    const auto past = static_cast<int>(reinterpret_cast<uintptr_t>(data) % 16 / sizeof(T));
    const int before = (size - past) % size;
    head = before < width ? before : width;
    packs = (width - head) / size;
    kept = Kept ? static_cast<T*>(dynamic_shared()) + (size - head) % size : data;
  }

  // This thread's element outside of packs, or -1.
  __device__ int single() const {
    const int number = static_cast<int>(threadIdx.x);
    const int column = number < head ? number : number + packs * size;
    return column < width ? column : -1;
  }

  __device__ void add_bias(int column, float (&values)[size]) const {
    if (!bias) return;
    if ((reinterpret_cast<uintptr_t>(bias + column) & 15) == 0) {
      float added[size];
      widen<T>(load16(bias + column), added);
#pragma unroll
      for (int i = 0; i < size; ++i) values[i] += added[i];
    } else {
#pragma unroll
      for (int i = 0; i < size; ++i) values[i] += static_cast<float>(bias[column + i]);
    }
  }

  __device__ float logit(const T* from, int column) const {
    return static_cast<float>(from[column]) + (bias ? static_cast<float>(bias[column]) : 0.0f);
  }

  // visit(column, values, whole) for this thread's logits with their bias; where not `whole`, of the first value alone,
  // beside which the others count for nothing.
  template <bool First, class Visit>
  __device__ void each(const Visit& visit) const {
    constexpr int batch = 4;  // loads that are under way together
    const int threads = static_cast<int>(blockDim.x);
    for (int pack = static_cast<int>(threadIdx.x); pack < packs; pack += batch * threads) {
      uint4 bytes[batch];
#pragma unroll
      for (int k = 0; k < batch; ++k) {
        if (pack + k * threads < packs) bytes[k] = load16((First ? data : kept) + head + (pack + k * threads) * size);
      }
#pragma unroll
      for (int k = 0; k < batch; ++k) {
        if (pack + k * threads >= packs) break;
        const int column = head + (pack + k * threads) * size;
        if (First && Kept) store16(kept + column, bytes[k]);
        float values[size];
        widen<T>(bytes[k], values);
        add_bias(column, values);
        visit(column, values, true);
      }
    }
    const int column = single();
    if (column < 0) return;
    float values[size];
#pragma unroll
    for (int i = 1; i < size; ++i) values[i] = -INFINITY;
    values[0] = logit(First ? data : kept, column);
    if (First && Kept) kept[column] = data[column];
    visit(column, values, false);
  }

  __device__ void write(int column, const float (&values)[size], bool whole) const {
    if (whole) {
      store16(data + column, narrow<T>(values));
    } else {
      data[column] = static_cast<T>(values[0]);
    }
  }
};

template <class T, bool Kept>
__device__ void clear(const Row<T, Kept>& row) {
  for (int pack = static_cast<int>(threadIdx.x); pack < row.packs; pack += static_cast<int>(blockDim.x)) {
    store16(row.data + row.head + pack * row.size, make_uint4(0, 0, 0, 0));
  }
  if (row.single() >= 0) row.data[row.single()] = static_cast<T>(0.0f);
}

// The row's largest logit and its sum of exp(logit - largest), in one pass (Milakov and Gimelshein 2018).
template <class T, bool Kept>
__device__ float2 largest_and_total(const Row<T, Kept>& row) {
  float largest[1] = {-FLT_MAX}, total[1] = {0};  // not -inf, whose difference from itself is no number
  row.template each<true>([&](int, const float(&values)[pack_size<T>], bool) {
    float higher = largest[0];
#pragma unroll
    for (int i = 0; i < pack_size<T>; ++i) higher = fmaxf(higher, values[i]);
    float sum = total[0] * __expf(largest[0] - higher);
#pragma unroll
    for (int i = 0; i < pack_size<T>; ++i) sum += __expf(values[i] - higher);
    largest[0] = higher;
    total[0] = sum;
  });
  const float mine = largest[0];
  block_join<Largest>(largest, 0);
  total[0] *= __expf(mine - largest[0]);
  block_join<Sum>(total, 1);
  return {largest[0], total[0]};
}

// Whether a logit before the label's is as large.
template <class T, bool Kept>
__device__ bool equalled_before(const Row<T, Kept>& row, int label, float own) {
  float found[1] = {0};
  row.template each<false>([&](int column, const float(&values)[pack_size<T>], bool) {
#pragma unroll
    for (int i = 0; i < pack_size<T>; ++i) {
      if (values[i] == own && column + i < label) found[0] = 1;
    }
  });
  block_join<Largest>(found, 1);
  return found[0] > 0;
}

// One block a row. The label's logit counts as best where no other is larger and none before it is as large.
template <class T, bool Kept>
__global__ void __launch_bounds__(max_row_threads) cross_entropy_kernel(Logits<T> logits) {
  const Row<T, Kept> row(logits, blockIdx.x);
  const auto label = static_cast<int>(logits.labels[blockIdx.x]);
  if (label < 0) {
    clear(row);
    if (threadIdx.x == 0) logits.losses[blockIdx.x] = logits.correct[blockIdx.x] = 0;
    return;
  }
  const float own = row.logit(row.data, label);
  const float2 sums = largest_and_total(row);  // two barriers: from here on nobody reads another thread's logits
  const bool best = own == sums.x && !equalled_before(row, label, own);
  const float largest = sums.x, share = 1.0f / sums.y;
  row.template each<false>([&](int column, float(&values)[pack_size<T>], bool whole) {
#pragma unroll
    for (int i = 0; i < pack_size<T>; ++i) {
      values[i] = __expf(values[i] - largest) * share - (column + i == label ? 1.0f : 0.0f);
    }
    row.write(column, values, whole);
  });
  if (threadIdx.x == 0) {
    logits.losses[blockIdx.x] = logf(sums.y) + largest - own;
    logits.correct[blockIdx.x] = best ? 1.0f : 0.0f;
  }
}

}  // namespace

CrossEntropy cross_entropy(at::Tensor& logits, const at::Tensor& bias, const at::Tensor& labels) {
  const DeviceGuard guard(logits.device());
  const int64_t rows = logits.size(0), width = logits.size(1);
  TORCH_INTERNAL_ASSERT(width <= 1 || logits.stride(1) == 1);
  const at::Tensor losses = at::empty({rows}, logits.options().dtype(at::kFloat)), correct = at::empty_like(losses);
  // Rows that fit stay in shared memory: GPT-2's take 98 KiB in 16 bits. The rest is for sums.
  const size_t bytes = static_cast<size_t>(width) * logits.element_size() + 32;
  const bool kept = bytes + 1024 <= max_shared_bytes();
  if (rows > 0) {
    dispatch(logits.scalar_type(), kept, [&](auto zero, auto keep) {
      using T = decltype(zero);
      const Logits<T> data{logits.data_ptr<T>(),     pointer<T>(bias),
                           labels.data_ptr<int64_t>(), losses.data_ptr<float>(),
                           correct.data_ptr<float>(), rows > 1 ? logits.stride(0) : width,
                           static_cast<int>(width)};
      launch_shared(keep.value ? bytes : 0, cross_entropy_kernel<T, keep.value>, static_cast<unsigned>(rows),
                    row_threads((width + pack_size<T> - 1) / pack_size<T>), data);
    });
  }
  return {losses.sum(), correct.sum()};
}

}  // namespace tessera::cuda
