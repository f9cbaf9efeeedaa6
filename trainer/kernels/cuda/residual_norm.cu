#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <optional>

#include "trainer/kernels/cuda/column_sums.cuh"
#include "trainer/kernels/cuda/model_kernels.h"
#include "trainer/kernels/cuda/philox.cuh"

// Threads work on a row's groups of eight elements, which share a number of dropout's.
namespace tessera::cuda {
namespace {

constexpr int dropout_lanes = 32, dropout_rows = 8;

template <class T, bool Aligned>
__global__ void __launch_bounds__(dropout_lanes* dropout_rows)
    dropout_kernel(const T* x, T* y, int64_t rows, int width, Site site) {
  const int group = static_cast<int>(blockIdx.x * dropout_lanes + threadIdx.x);
  if (group * 8 >= width) return;
  const int count = count_at<Aligned>(group * 8, width);
  for (int64_t row = int64_t{blockIdx.y} * dropout_rows + threadIdx.y; row < rows;
       row += int64_t{gridDim.y} * dropout_rows) {
    const Eight<T> pack = load_eight<Aligned>(x + row * width + group * 8, count);
    float values[8];
    widen(pack, values);
    drop(site, dropout_of_row(site, row), group, values);
    store_eight<Aligned>(y + row * width + group * 8, count, narrow_eight<T>(values));
  }
}

template <class T>
struct Forward {
  const T *x, *bias, *residual, *weight, *shift;
  T *sum, *normed;
  float *mean, *rstd;
  int width;
  float epsilon;
};

// Eight elements of the sum, rounded to the data's type: what backward will read.
template <bool Aligned, class T>
__device__ Eight<T> add_up(const Forward<T>& data, const Site& site, const RowDropout& dropout, int64_t row,
                           int group) {
  const int column = group * 8, count = count_at<Aligned>(column, data.width);
  const int64_t at = row * data.width + column;
  const Eight<T> x = load_eight<Aligned>(data.x + at, count);
  Eight<T> residual, bias;
  if (data.residual) residual = load_eight<Aligned>(data.residual + at, count);
  if (data.bias) bias = load_eight<Aligned>(data.bias + column, count);
  float values[8], other[8];
  widen(x, values);
  if (data.bias) {
    widen(bias, other);
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] += other[i];
  }
  drop(site, dropout, group, values);
  if (data.residual) {
    widen(residual, other);
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] += other[i];
  }
  const Eight<T> sum = narrow_eight<T>(values);
  if (data.sum != data.x) store_eight<Aligned>(data.sum + at, count, sum);
  return sum;
}

// One block a row, which stays in shared memory; a thread reads there what it wrote itself.
template <class T, bool Aligned>
__global__ void __launch_bounds__(max_row_threads) forward_kernel(Forward<T> data, Site site) {
  const int64_t row = blockIdx.x;
  const int groups = (data.width + 7) / 8, first = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
  auto* kept = static_cast<Eight<T>*>(dynamic_shared());
  const RowDropout dropout = dropout_of_row(site, row);
  float mean[1] = {0}, variance[1] = {0}, values[8];
  for (int group = first; group < groups; group += step) {
    const Eight<T> sum = add_up<Aligned>(data, site, dropout, row, group);
    if (!data.normed) continue;
    kept[group] = sum;
    widen(sum, values);
#pragma unroll
    for (int i = 0; i < 8; ++i) mean[0] += values[i];
  }
  if (!data.normed) return;
  block_join<Sum>(mean, 0);
  mean[0] /= static_cast<float>(data.width);
  for (int group = first; group < groups; group += step) {
    const int count = count_at<Aligned>(group * 8, data.width);
    widen(kept[group], values);
#pragma unroll
    for (int i = 0; i < 8; ++i) variance[0] += i < count ? (values[i] - mean[0]) * (values[i] - mean[0]) : 0.0f;
  }
  block_join<Sum>(variance, 1);
  const float rstd = rsqrtf(variance[0] / static_cast<float>(data.width) + data.epsilon);
  for (int group = first; group < groups; group += step) {
    const int count = count_at<Aligned>(group * 8, data.width);
    float weight[8], shift[8];
    widen(kept[group], values);
    widen(load_eight<Aligned>(data.weight + group * 8, count), weight);
    widen(load_eight<Aligned>(data.shift + group * 8, count), shift);
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] = (values[i] - mean[0]) * rstd * weight[i] + shift[i];
    store_eight<Aligned>(data.normed + row * data.width + group * 8, count, narrow_eight<T>(values));
  }
  if (threadIdx.x == 0) {
    data.mean[row] = mean[0];
    data.rstd[row] = rstd;
  }
}

template <class T>
struct Backward {
  const T *sum_gradient, *normed_gradient, *sum, *weight;
  const float *mean, *rstd;
  float2* row_means;  // [rows], where several blocks share a row; else null
  T *residual, *x;    // x is residual where nothing was dropped
  Partials sums;      // of the gradients of weight and shift, where there is a norm, and of bias
  int bias_sum;       // which of the sums is the bias's, or -1
  int64_t rows;
  int width;
};

// What a thread reads of a row: eight elements from its column on, zeros past the end.
template <class T>
struct Loaded {
  Eight<T> above, gradient, sum;
  float mean, rstd;
};

template <bool Aligned, class T>
__device__ Loaded<T> load_row(const Backward<T>& data, int64_t row, int column) {
  Loaded<T> loaded{};
  if (row >= data.rows || column >= data.width) return loaded;
  const int count = count_at<Aligned>(column, data.width);
  const int64_t at = row * data.width + column;
  if (data.sum_gradient) loaded.above = load_eight<Aligned>(data.sum_gradient + at, count);
  if (!data.normed_gradient) return loaded;
  loaded.gradient = load_eight<Aligned>(data.normed_gradient + at, count);
  loaded.sum = load_eight<Aligned>(data.sum + at, count);
  loaded.mean = data.mean[row];
  loaded.rstd = data.rstd[row];
  return loaded;
}

// The means over rows that gradients through a norm need: of gradient * weight, and of that times the normalised value.
template <class T, bool Aligned>
__global__ void __launch_bounds__(max_row_threads) row_means_kernel(Backward<T> data) {
  const int64_t row = blockIdx.x;
  float means[2] = {0, 0};
  const int step = static_cast<int>(blockDim.x) * 8;
  for (int column = static_cast<int>(threadIdx.x) * 8; column < data.width; column += step) {
    const int count = count_at<Aligned>(column, data.width);
    float gradient[8], sum[8], weight[8];
    widen(load_eight<Aligned>(data.normed_gradient + row * data.width + column, count), gradient);
    widen(load_eight<Aligned>(data.sum + row * data.width + column, count), sum);
    widen(load_eight<Aligned>(data.weight + column, count), weight);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      means[0] += gradient[i] * weight[i];
      means[1] += gradient[i] * weight[i] * (sum[i] - data.mean[row]) * data.rstd[row];
    }
  }
  block_join<Sum>(means, 0);
  const auto width = static_cast<float>(data.width);
  if (threadIdx.x == 0) data.row_means[row] = make_float2(means[0] / width, means[1] / width);
}

// Eight columns' sums over the rows that a block had.
struct ThreadSums {
  float weight[8], shift[8], bias[8];
};

// total += the gradient through the norm of eight elements, for all threads of the block at once.
template <class T>
__device__ void add_norm_gradient(const Backward<T>& data, const Loaded<T>& loaded, int64_t row,
                                  const float (&weight)[8], float (&total)[8], ThreadSums& sums, int buffer) {
  float gradient[8], scaled[8], means[2] = {0, 0};
  widen(loaded.gradient, gradient);
  widen(loaded.sum, scaled);
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    scaled[i] = (scaled[i] - loaded.mean) * loaded.rstd;
    sums.weight[i] += gradient[i] * scaled[i];
    sums.shift[i] += gradient[i];
    gradient[i] *= weight[i];
    means[0] += gradient[i];
    means[1] += gradient[i] * scaled[i];
  }
  if (data.row_means) {
    means[0] = data.row_means[row].x;
    means[1] = data.row_means[row].y;
  } else {
    block_join<Sum>(means, buffer);
    means[0] /= static_cast<float>(data.width);
    means[1] /= static_cast<float>(data.width);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) total[i] += (gradient[i] - means[0] - scaled[i] * means[1]) * loaded.rstd;
}

template <class T>
__device__ void write_sums(const Backward<T>& data, int column, const ThreadSums& sums) {
  const auto block = static_cast<int>(blockIdx.y);
  const auto write = [&](int which, const float(&values)[8]) {
    store_eight<true>(data.sums.at(which, block) + column, 8, narrow_eight<float>(values));
  };
  if (data.normed_gradient) {
    write(0, sums.weight);
    write(1, sums.shift);
  }
  if (data.bias_sum >= 0) write(data.bias_sum, sums.bias);
}

// A thread has the same eight columns of the rows y, y + gridDim.y, …, so that their sums stay in registers. While a
// row's means are made, the next row is on its way.
template <class T, bool Aligned>
__global__ void __launch_bounds__(max_row_threads) backward_kernel(Backward<T> data, Site site) {
  const int group = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x), column = group * 8;
  const bool mine = column < data.width;
  const int count = count_at<Aligned>(column, data.width);
  ThreadSums sums{};
  float weight[8] = {};
  if (mine && data.normed_gradient) widen(load_eight<Aligned>(data.weight + column, count), weight);
  Loaded<T> next = load_row<Aligned>(data, blockIdx.y, column);
  int buffer = 0;
  for (int64_t row = blockIdx.y; row < data.rows; row += gridDim.y) {
    const Loaded<T> loaded = next;
    next = load_row<Aligned>(data, row + gridDim.y, column);
    float total[8];
    widen(loaded.above, total);
    if (data.normed_gradient) add_norm_gradient(data, loaded, row, weight, total, sums, buffer);
    buffer = 1 - buffer;
    if (!mine) continue;
    const int64_t at = row * data.width + column;
    store_eight<Aligned>(data.residual + at, count, narrow_eight<T>(total));
    if (data.x != data.residual) {
      drop(site, dropout_of_row(site, row), group, total);
      store_eight<Aligned>(data.x + at, count, narrow_eight<T>(total));
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) sums.bias[i] += total[i];
  }
  if (mine) write_sums(data, column, sums);
}

// Blocks along rows, each of which makes sums of its own: as many as run at once, of 512 threads a multiprocessor.
dim3 backward_grid(int64_t rows, unsigned blocks_a_row, unsigned threads) {
  const int64_t wanted = int64_t{multiprocessors()} * (max_row_threads / threads) / blocks_a_row;
  return {blocks_a_row, static_cast<unsigned>(std::min({std::max<int64_t>(1, wanted), rows, int64_t{65535}}))};
}

}  // namespace

at::Tensor dropout(const at::Tensor& x, const DropoutSite& site) {
  if (!site.active() || x.numel() == 0) return x;
  const DeviceGuard guard(x.device());
  at::Tensor y = at::empty_like(x);
  const int64_t rows = x.size(0), width = x.size(1);
  const dim3 grid(static_cast<unsigned>((width + dropout_lanes * 8 - 1) / (dropout_lanes * 8)),
                  static_cast<unsigned>(std::min<int64_t>((rows + dropout_rows - 1) / dropout_rows, 65535)));
  dispatch(x.scalar_type(), aligned_rows(width, x, y), [&](auto zero, auto aligned) {
    using T = decltype(zero);
    launch(dropout_kernel<T, aligned.value>, grid, dim3(dropout_lanes, dropout_rows), x.data_ptr<T>(), y.data_ptr<T>(),
           rows, static_cast<int>(width), Site(site));
  });
  return y;
}

ResidualNormOutput residual_norm(const ResidualNormInput& input) {
  const bool adds = input.bias.defined() || input.residual.defined() || input.dropout.active();
  const bool norms = input.weight.defined();
  ResidualNormOutput output;
  output.sum = adds ? at::empty_like(input.x) : input.x;
  if (!adds && !norms) return output;
  const DeviceGuard guard(input.x.device());
  if (norms) {
    output.normed = at::empty_like(input.x);
    output.mean = at::empty({input.x.size(0)}, input.x.options().dtype(at::kFloat));
    output.rstd = at::empty_like(output.mean);
  }
  if (input.x.numel() == 0) return output;
  const int64_t width = input.x.size(1), groups = (width + 7) / 8;
  const bool aligned = aligned_rows(width, input.x, input.bias, input.residual, input.weight, input.shift, output.sum,
                                    output.normed);
  const size_t shared = norms ? static_cast<size_t>(groups) * 8 * input.x.element_size() : 0;
  TORCH_CHECK(shared + 1024 <= max_shared_bytes(), "a norm over ", width, " elements is more than this GPU can hold");
  dispatch(input.x.scalar_type(), aligned, [&](auto zero, auto is_aligned) {
    using T = decltype(zero);
    const Forward<T> data{pointer<T>(input.x),         pointer<T>(input.bias),      pointer<T>(input.residual),
                          pointer<T>(input.weight),    pointer<T>(input.shift),     pointer<T>(output.sum),
                          pointer<T>(output.normed),   pointer<float>(output.mean), pointer<float>(output.rstd),
                          static_cast<int>(width), static_cast<float>(input.epsilon)};
    launch_shared(shared, forward_kernel<T, is_aligned.value>, static_cast<unsigned>(input.x.size(0)),
                  row_threads(groups), data, Site(input.dropout));
  });
  return output;
}

ResidualNormGradient residual_norm_backward(const ResidualNormInput& input, const ResidualNormOutput& output,
                                            const at::Tensor& sum_gradient, const at::Tensor& normed_gradient) {
  const DeviceGuard guard(input.x.device());
  const int64_t rows = input.x.size(0), width = input.x.size(1), groups = (width + 7) / 8;
  const at::ScalarType type = input.x.scalar_type();
  const bool norms = normed_gradient.defined(), biased = input.bias.defined();
  const unsigned threads = row_threads(groups), blocks_a_row = static_cast<unsigned>((groups + threads - 1) / threads);
  const dim3 grid = backward_grid(rows, blocks_a_row, threads);
  ResidualNormGradient gradient;
  gradient.residual = at::empty_like(input.x);
  gradient.x = input.dropout.active() ? at::empty_like(input.x) : gradient.residual;
  std::optional<ColumnSums> sums;
  const int num_sums = (norms ? 2 : 0) + (biased ? 1 : 0);
  if (num_sums > 0) sums.emplace(num_sums, rows > 0 ? grid.y : 0, width, input.x.options());
  at::Tensor row_means;
  if (norms && blocks_a_row > 1) row_means = at::empty({rows, 2}, output.mean.options());
  const bool aligned = aligned_rows(width, sum_gradient, normed_gradient, output.sum, input.weight, gradient.residual,
                                    gradient.x);
  if (rows > 0) {
    dispatch(type, aligned, [&](auto zero, auto is_aligned) {
      using T = decltype(zero);
      const Backward<T> data{pointer<T>(sum_gradient),
                             pointer<T>(normed_gradient),
                             pointer<T>(output.sum),
                             pointer<T>(input.weight),
                             pointer<float>(output.mean),
                             pointer<float>(output.rstd),
                             reinterpret_cast<float2*>(pointer<float>(row_means)),
                             pointer<T>(gradient.residual),
                             pointer<T>(gradient.x),
                             sums ? sums->partials() : Partials(),
                             !biased ? -1 : norms ? 2 : 0,
                             rows,
                             static_cast<int>(width)};
      if (row_means.defined()) {
        launch(row_means_kernel<T, is_aligned.value>, static_cast<unsigned>(rows), threads, data);
      }
      launch(backward_kernel<T, is_aligned.value>, grid, threads, data, Site(input.dropout));
    });
  }
  if (!sums) return gradient;
  const at::Tensor totals = sums->total(type);
  if (norms) {
    gradient.weight = totals.select(0, 0);
    gradient.shift = totals.select(0, 1);
  }
  if (biased) gradient.bias = totals.select(0, -1);
  return gradient;
}

}  // namespace tessera::cuda
