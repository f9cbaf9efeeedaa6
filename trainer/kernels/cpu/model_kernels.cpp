#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <array>
#include <cmath>

#include "trainer/kernels/cpu/blocks.h"
#include "trainer/kernels/cpu/model_loops.h"
#include "trainer/kernels/kernels.h"

namespace tessera::cpu {
namespace {

using Floats = std::vector<float>;

// A [rows, width] tensor, contiguous or padded, read and written a row at a time as float32.
class Rows {
 public:
  explicit Rows(const at::Tensor& tensor)
      : data_(static_cast<char*>(tensor.data_ptr())),
        type_(tensor.scalar_type()),
        width_(tensor.size(-1)),
        stride_(tensor.is_contiguous() ? width_ : tensor.stride(0)),
        bytes_(static_cast<int64_t>(tensor.element_size())) {
    TORCH_INTERNAL_ASSERT(tensor.is_contiguous() || (tensor.stride(1) == 1 && stride_ >= width_));
  }
  void load(int64_t row, float* values) const { load(row, 0, width_, values); }
  void load(int64_t row, int64_t column, int64_t count, float* values) const {
    blocks::load(at(row, column), type_, values, count, 1.0f);
  }
  void store(int64_t row, const float* values) const { store(row, 0, width_, values); }
  void store(int64_t row, int64_t column, int64_t count, const float* values) const {
    if (type_ == at::kFloat) {
      std::copy_n(values, count, reinterpret_cast<float*>(at(row, column)));
    } else {
      blocks::store(values, at(row, column), type_, count);
    }
  }

 private:
  char* at(int64_t row, int64_t column) const { return data_ + (row * stride_ + column) * bytes_; }

  char* data_;
  at::ScalarType type_;
  int64_t width_, stride_, bytes_;
};

Floats floats(const at::Tensor& vector) {
  Floats values(static_cast<size_t>(vector.numel()));
  blocks::load(vector.data_ptr(), vector.scalar_type(), values.data(), vector.numel(), 1.0f);
  return values;
}

// Sums over rows that each thread makes for itself, joined in the order of threads.
class ColumnSums {
 public:
  explicit ColumnSums(int64_t width)
      : width_(width), sums_(static_cast<size_t>(width * at::get_num_threads()), 0.0f) {}
  float* mine() { return sums_.data() + width_ * at::get_thread_num(); }
  at::Tensor total(at::ScalarType type) {
    at::Tensor result = at::empty({width_}, at::kFloat);
    std::copy_n(sums_.data(), width_, result.data_ptr<float>());
    for (int64_t thread = 1; thread < at::get_num_threads(); ++thread) {
      loops::add(result.data_ptr<float>(), sums_.data() + thread * width_, width_);
    }
    return result.to(type);
  }

 private:
  int64_t width_;
  Floats sums_;
};

// One site's dropout, applied to rows.
class RowDropout {
 public:
  RowDropout(const DropoutSite& site, int64_t width)
      : site_(site),
        samples_(site.active() ? site.samples.data_ptr<int64_t>() : nullptr),
        positions_(site.positions.defined() ? site.positions.data_ptr<int64_t>() : nullptr),
        groups_((width + 7) / 8),
        bits_(site.active() ? static_cast<size_t>(4 * groups_) : 0) {}
  void apply(int64_t row, float* values, int64_t width) {
    if (!samples_) return;
    const int64_t column = row % site_.sequence;
    const auto position =
        static_cast<uint32_t>(positions_ ? positions_[column] : site_.first_position + column);
    const auto sample = static_cast<uint64_t>(samples_[row / site_.sequence]);
    loops::dropout_bits({site_.key, sample, position, site_.first_group}, groups_, bits_.data());
    loops::apply_dropout(values, reinterpret_cast<const uint16_t*>(bits_.data()), width, site_.threshold,
                         site_.scale());
  }

 private:
  const DropoutSite& site_;
  const int64_t* samples_;
  const int64_t* positions_;
  int64_t groups_;
  std::vector<uint32_t> bits_;
};

// Rows enough that a thread's share is worth handing over.
int64_t grain(int64_t width) { return 1 + 16384 / (width + 1); }

at::Tensor dropout(const at::Tensor& x, const DropoutSite& site) {
  if (!site.active()) return x;
  const int64_t width = x.size(1);
  at::Tensor y = at::empty_like(x);
  const Rows in(x), out(y);
  at::parallel_for(0, x.size(0), grain(width), [&](int64_t begin, int64_t end) {
    Floats values(static_cast<size_t>(width));
    RowDropout drop(site, width);
    for (int64_t row = begin; row < end; ++row) {
      in.load(row, values.data());
      drop.apply(row, values.data(), width);
      out.store(row, values.data());
    }
  });
  return y;
}

// The sum of one row, in `sum`, rounded to the data's type: what backward will read.
struct Addends {
  Rows x;
  std::optional<Rows> residual;
  Floats bias;
  void add(int64_t row, RowDropout& drop, Floats& sum, Floats& scratch) const {
    const auto width = static_cast<int64_t>(sum.size());
    x.load(row, sum.data());
    if (!bias.empty()) loops::add(sum.data(), bias.data(), width);
    drop.apply(row, sum.data(), width);
    if (!residual) return;
    residual->load(row, scratch.data());
    loops::add(sum.data(), scratch.data(), width);
  }
};

ResidualNormOutput residual_norm(const ResidualNormInput& input) {
  const int64_t rows = input.x.size(0), width = input.x.size(1);
  const bool adds = input.bias.defined() || input.residual.defined() || input.dropout.active();
  const bool norms = input.weight.defined();
  ResidualNormOutput output;
  output.sum = adds ? at::empty_like(input.x) : input.x;
  if (!adds && !norms) return output;
  output.mean = at::empty({norms ? rows : 0}, at::kFloat);
  output.rstd = at::empty_like(output.mean);
  output.normed = norms ? at::empty_like(input.x) : input.x;
  Addends addends{Rows(input.x), {}, input.bias.defined() ? floats(input.bias) : Floats()};
  if (input.residual.defined()) addends.residual.emplace(input.residual);
  const Rows sums(output.sum), normed(output.normed);
  const Floats weight = norms ? floats(input.weight) : Floats(),
               shift = norms ? floats(input.shift) : Floats();
  float* means = output.mean.data_ptr<float>();
  float* rstds = output.rstd.data_ptr<float>();
  at::parallel_for(0, rows, grain(width), [&](int64_t begin, int64_t end) {
    Floats sum(static_cast<size_t>(width)), out(static_cast<size_t>(width));
    RowDropout drop(input.dropout, width);
    for (int64_t row = begin; row < end; ++row) {
      addends.add(row, drop, sum, out);
      if (adds) sums.store(row, sum.data());
      if (!norms) continue;
      if (adds) sums.load(row, sum.data());
      means[row] = loops::sum(sum.data(), width) / static_cast<float>(width);
      const float variance =
          loops::squared_distance(sum.data(), width, means[row]) / static_cast<float>(width);
      rstds[row] = 1.0f / std::sqrt(variance + static_cast<float>(input.epsilon));
      loops::normalise(sum.data(), {means[row], rstds[row], weight.data()}, shift.data(), out.data(), width);
      normed.store(row, out.data());
    }
  });
  if (!norms) output.normed = output.mean = output.rstd = at::Tensor();
  return output;
}

// The parts of residual_norm_backward() that do not change from row to row.
struct NormBackward {
  std::optional<Rows> sum_gradient, normed_gradient;
  Rows sum;
  Floats weight;
  const float* means;
  const float* rstds;

  // total = gradient of the sum at this row
  void row(int64_t row, Floats& total, std::array<Floats, 2>& scratch, float* weight_gradient,
           float* shift_gradient) const {
    const auto width = static_cast<int64_t>(total.size());
    if (sum_gradient) {
      sum_gradient->load(row, total.data());
    } else {
      std::fill(total.begin(), total.end(), 0.0f);
    }
    if (!normed_gradient) return;
    normed_gradient->load(row, scratch[0].data());
    sum.load(row, scratch[1].data());
    const loops::NormRow norm{means[row], rstds[row], weight.data()};
    loops::NormSums sums =
        loops::norm_sums(scratch[0].data(), scratch[1].data(), norm, weight_gradient, shift_gradient, width);
    sums.weighted /= static_cast<float>(width);
    sums.weighted_scaled /= static_cast<float>(width);
    loops::norm_gradient(scratch[0].data(), scratch[1].data(), norm, sums, total.data(), width);
  }
};

ResidualNormGradient residual_norm_backward(const ResidualNormInput& input, const ResidualNormOutput& output,
                                            const at::Tensor& sum_gradient,
                                            const at::Tensor& normed_gradient) {
  const int64_t width = input.x.size(1);
  const at::ScalarType type = input.x.scalar_type();
  const bool norms = normed_gradient.defined();
  NormBackward backward{{}, {}, Rows(output.sum), {}, nullptr, nullptr};
  if (sum_gradient.defined()) backward.sum_gradient.emplace(sum_gradient);
  if (norms) {
    backward.normed_gradient.emplace(normed_gradient);
    backward.weight = floats(input.weight);
    backward.means = output.mean.data_ptr<float>();
    backward.rstds = output.rstd.data_ptr<float>();
  }
  ResidualNormGradient gradient;
  gradient.residual = at::empty_like(input.x);
  gradient.x = input.dropout.active() ? at::empty_like(input.x) : gradient.residual;
  const Rows residual_rows(gradient.residual), x_rows(gradient.x);
  ColumnSums weight_sums(norms ? width : 0), shift_sums(norms ? width : 0);
  ColumnSums bias_sums(input.bias.defined() ? width : 0);
  at::parallel_for(0, input.x.size(0), grain(width), [&](int64_t begin, int64_t end) {
    Floats total(static_cast<size_t>(width));
    std::array<Floats, 2> scratch{Floats(total.size()), Floats(total.size())};
    RowDropout drop(input.dropout, width);
    for (int64_t row = begin; row < end; ++row) {
      backward.row(row, total, scratch, weight_sums.mine(), shift_sums.mine());
      residual_rows.store(row, total.data());
      if (input.dropout.active()) {
        drop.apply(row, total.data(), width);
        x_rows.store(row, total.data());
      }
      if (input.bias.defined()) loops::add(bias_sums.mine(), total.data(), width);
    }
  });
  if (input.bias.defined()) gradient.bias = bias_sums.total(type);
  if (norms) {
    gradient.weight = weight_sums.total(type);
    gradient.shift = shift_sums.total(type);
  }
  return gradient;
}

// Wide rows are worked on in pieces that stay in the first-level cache.
constexpr int64_t piece = 1024;
template <class Body>
void for_pieces(int64_t rows, int64_t width, const Body& body) {
  at::parallel_for(0, rows, grain(width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t column = 0; column < width; column += piece)
        body(row, column, std::min(piece, width - column));
    }
  });
}

at::Tensor activation(const at::Tensor& x, const at::Tensor& bias, Activation kind) {
  constexpr std::array loop{loops::gelu_erf, loops::gelu_tanh, loops::relu};
  const auto apply = loop.at(static_cast<size_t>(kind));
  const Floats added = bias.defined() ? floats(bias) : Floats();
  at::Tensor y = at::empty_like(x);
  const Rows in(x), out(y);
  for_pieces(x.size(0), x.size(1), [&](int64_t row, int64_t column, int64_t count) {
    alignas(64) std::array<float, piece> values;
    in.load(row, column, count, values.data());
    if (!added.empty()) loops::add(values.data(), added.data() + column, count);
    apply(values.data(), count);
    out.store(row, column, count, values.data());
  });
  return y;
}

ActivationGradient activation_backward(const at::Tensor& gradient, const at::Tensor& x,
                                       const at::Tensor& bias, Activation kind) {
  constexpr std::array loop{loops::gelu_erf_gradient, loops::gelu_tanh_gradient, loops::relu_gradient};
  const auto apply = loop.at(static_cast<size_t>(kind));
  const Floats added = bias.defined() ? floats(bias) : Floats();
  ActivationGradient result{at::empty_like(x), {}};
  ColumnSums bias_sums(bias.defined() ? x.size(1) : 0);
  const Rows above(gradient), in(x), out(result.x);
  for_pieces(x.size(0), x.size(1), [&](int64_t row, int64_t column, int64_t count) {
    alignas(64) std::array<float, piece> values, slope;
    in.load(row, column, count, values.data());
    above.load(row, column, count, slope.data());
    if (!added.empty()) loops::add(values.data(), added.data() + column, count);
    apply(values.data(), slope.data(), count);
    out.store(row, column, count, slope.data());
    if (!added.empty()) loops::add(bias_sums.mine() + column, slope.data(), count);
  });
  if (bias.defined()) result.bias = bias_sums.total(x.scalar_type());
  return result;
}

// Whether the label's logit is the first of the largest.
bool is_best(const Floats& values, size_t label, float largest) {
  return values[label] == largest && std::find(values.begin(), values.end(), largest) ==
                                         values.begin() + static_cast<std::ptrdiff_t>(label);
}

CrossEntropy cross_entropy(at::Tensor& logits, const at::Tensor& bias, const at::Tensor& labels) {
  const int64_t rows = logits.size(0), width = logits.size(1);
  const Floats added = bias.defined() ? floats(bias) : Floats();
  const int64_t* label = labels.data_ptr<int64_t>();
  at::Tensor losses = at::empty({rows}, at::kFloat), correct = at::empty({rows}, at::kFloat);
  const Rows data(logits);
  at::parallel_for(0, rows, 1, [&](int64_t begin, int64_t end) {
    Floats values(static_cast<size_t>(width));
    for (int64_t row = begin; row < end; ++row) {
      if (label[row] < 0) {
        losses.data_ptr<float>()[row] = correct.data_ptr<float>()[row] = 0;
        std::fill(values.begin(), values.end(), 0.0f);
        data.store(row, values.data());
        continue;
      }
      const auto at = static_cast<size_t>(label[row]);
      data.load(row, values.data());
      if (!added.empty()) loops::add(values.data(), added.data(), width);
      const float largest = loops::largest(values.data(), width), own = values[at];
      correct.data_ptr<float>()[row] = is_best(values, at, largest) ? 1.0f : 0.0f;
      const float total = loops::exponentials(values.data(), width, largest);
      losses.data_ptr<float>()[row] = std::log(total) + largest - own;
      loops::scale(values.data(), width, 1 / total);
      values[at] -= 1;
      data.store(row, values.data());
    }
  });
  return {losses.sum(), correct.sum()};
}

at::Tensor column_sum(const at::Tensor& x) {
  const int64_t width = x.size(1);
  ColumnSums sums(width);
  const Rows in(x);
  for_pieces(x.size(0), width, [&](int64_t row, int64_t column, int64_t count) {
    alignas(64) std::array<float, piece> values;
    in.load(row, column, count, values.data());
    loops::add(sums.mine() + column, values.data(), count);
  });
  return sums.total(x.scalar_type());
}

}  // namespace
}  // namespace tessera::cpu

namespace tessera {

const Kernels& cpu_kernels() {
  static const Kernels kernels{cpu::dropout,    cpu::residual_norm,       cpu::residual_norm_backward,
                               cpu::activation, cpu::activation_backward, cpu::cross_entropy,
                               cpu::column_sum};
  return kernels;
}

}  // namespace tessera
