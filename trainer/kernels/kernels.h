#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/kernels/adamw.h"

namespace tessera {

/// Where a dropout acts: which of the elements of [rows, hidden] it keeps is a pure function of this. Element
/// h of row r is kept when 16-bit lane h % 8 of philox({sample low, sample high, position, first_group + h /
/// 8}, key) is at least `threshold`, with sample = samples[r / sequence] and position = positions[r %
/// sequence], or first_position + r % sequence where positions are undefined.
struct DropoutSite {
  uint64_t key = 0;        ///< mixes seed, step and the site's name
  uint32_t threshold = 0;  ///< probability x 65536; 0 = keep everything
  at::Tensor samples;      ///< [batch] int64, on the device of the data
  int64_t sequence = 1;
  int64_t first_position = 0;
  at::Tensor positions;      ///< [sequence] int64, on the device of the data
  uint32_t first_group = 0;  ///< where columns are divided: the first one's here, / 8

  bool active() const { return threshold > 0; }
  float scale() const { return 65536.0f / static_cast<float>(65536 - threshold); }
};

enum class Activation { gelu_erf, gelu_tanh, relu };
/// As recipes name them.
inline std::vector<std::string> names_of(Activation) { return {"gelu", "gelu_tanh", "relu"}; }

/// sum = residual + dropout(x + bias); normed = (sum - mean) * rstd * weight + shift, over the last
/// dimension. bias, residual and (weight, shift) may each be undefined: no such addend, no norm. All [rows,
/// hidden] or [hidden].
struct ResidualNormInput {
  at::Tensor x, bias, residual, weight, shift;
  double epsilon = 0;
  DropoutSite dropout;
};
struct ResidualNormOutput {
  at::Tensor sum;         ///< x itself where there is nothing to add
  at::Tensor normed;      ///< undefined without a norm
  at::Tensor mean, rstd;  ///< [rows] float32 (float64 for float64 data)
};
struct ResidualNormGradient {
  at::Tensor residual;       ///< [rows, hidden]: of sum
  at::Tensor x;              ///< the same tensor where nothing was dropped
  at::Tensor bias;           ///< [hidden] in the data's type, as weight and shift; undefined without
  at::Tensor weight, shift;  ///< undefined without a norm
};

struct ActivationGradient {
  at::Tensor x;     ///< [rows, hidden]
  at::Tensor bias;  ///< [hidden]
};

struct CrossEntropy {
  at::Tensor sum;  ///< [] float32 (float64 for float64 logits): sum over rows of -log softmax(logits)[label]
  at::Tensor correct;  ///< [] float32: rows whose largest logit is the label's
};

/// One device's implementation of what models do most. Data are float32, bfloat16, float16 or float64,
/// contiguous, [rows, hidden]; reductions are in float32 (float64 for float64). Where it is said, rows may be
/// padded: dense themselves, stride(0) >= hidden elements apart; what lies between them is neither read nor
/// written.
struct Kernels {
  /// keep * x * scale; its own gradient.
  at::Tensor (*dropout)(const at::Tensor& x, const DropoutSite& site);
  ResidualNormOutput (*residual_norm)(const ResidualNormInput& input);
  /// Gradients of sum and normed may be undefined (zero), not both.
  ResidualNormGradient (*residual_norm_backward)(const ResidualNormInput& input,
                                                 const ResidualNormOutput& output,
                                                 const at::Tensor& sum_gradient,
                                                 const at::Tensor& normed_gradient);
  /// activation(x + bias); bias may be undefined.
  at::Tensor (*activation)(const at::Tensor& x, const at::Tensor& bias, Activation kind);
  ActivationGradient (*activation_backward)(const at::Tensor& gradient, const at::Tensor& x,
                                            const at::Tensor& bias, Activation kind);
  /// Adds bias [classes] (may be undefined) to logits [rows, classes], which may be padded, and overwrites
  /// them with the gradient of the sum. A row whose label is negative predicts nothing: no loss, no gradient,
  /// not correct.
  CrossEntropy (*cross_entropy)(at::Tensor& logits, const at::Tensor& bias, const at::Tensor& labels);
  /// x.sum(0) of [rows, hidden], in the data's type; rows may be padded.
  at::Tensor (*column_sum)(const at::Tensor& x);
  /// A step of AdamW and the sum of squares, of many tensors in a launch or two; null where there are none.
  void (*adamw)(const std::vector<AdamwTensors>& tensors, const AdamwStep& step) = nullptr;
  at::Tensor (*sum_of_squares)(const std::vector<at::Tensor>& tensors) = nullptr;
};

/// The kernels for data of this type on this device: our own where there are some, else compositions of
/// ATen's.
const Kernels& kernels_for(const at::Tensor& data);

/// Compositions of ATen operations that run on every device: the reference that the others are tested
/// against.
const Kernels& generic_kernels();
/// For float32, bfloat16 and float16 on the CPU.
const Kernels& cpu_kernels();

/// Called once by the GPU plug-in when it is loaded.
void register_cuda_kernels(const Kernels& kernels);

/// a [n, k] times the transpose of b [m, k] plus bias [m] (may be undefined) -> [n, m]; a and b may be
/// transposed views, and their rows padded. The fastest product at hand, which on a CPU is oneDNN's, for
/// float32 too (MKL's takes a slow path on some machines).
at::Tensor multiply_transposed(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias = {});

/// The same, its rows padded to a multiple of `row_multiple` elements: a GPU's tensor cores want rows aligned
/// to 16 bytes, in this product and in those that read it, and GPT-2's 50,257 classes are odd. 0: what suits
/// the device, which on a CPU is no padding, for oneDNN packs what it reads.
at::Tensor multiply_transposed_padded(const at::Tensor& a, const at::Tensor& b, const at::Tensor& bias,
                                      int64_t row_multiple = 0);

}  // namespace tessera
