#pragma once
#include <cstdint>

/// The inner loops of models' kernels, over one row of float32 in the first-level cache; see loops.h.
namespace tessera::loops {

/// Dropout bits of elements [0, 8 * groups) of one row: lane h of the result, as uint16_t, belongs to element
/// h (DropoutSite in kernels.h). `bits` holds 4 * groups words.
struct DropoutRow {
  uint64_t key, sample;
  uint32_t position;
  uint32_t first_group;
};
void dropout_bits(const DropoutRow& row, int64_t groups, uint32_t* bits);
/// values[h] = bits[h] >= threshold ? values[h] * scale : 0
void apply_dropout(float* values, const uint16_t* bits, int64_t count, uint32_t threshold, float scale);

/// values += other
void add(float* values, const float* other, int64_t count);
void scale(float* values, int64_t count, float factor);
float sum(const float* values, int64_t count);
float largest(const float* values, int64_t count);
/// Sum of (value - mean)^2.
float squared_distance(const float* values, int64_t count, float mean);

/// out = (values - mean) * rstd * weight + shift
struct NormRow {
  float mean, rstd;
  const float* weight;
};
void normalise(const float* values, const NormRow& norm, const float* shift, float* out, int64_t count);

struct NormSums {
  float weighted = 0;         ///< sum of gradient * weight
  float weighted_scaled = 0;  ///< sum of gradient * weight * normalised value
};
/// Adds to the gradients of weight and shift, and gives what the gradient of the values needs.
NormSums norm_sums(const float* gradient, const float* values, const NormRow& norm, float* weight_gradient,
                   float* shift_gradient, int64_t count);
/// total += gradient of the values; `means` are the sums divided by the width.
void norm_gradient(const float* gradient, const float* values, const NormRow& norm, NormSums means,
                   float* total, int64_t count);

/// In place. Exponentials by a polynomial, relative error below 2e-7; erf after Abramowitz and Stegun 7.1.26,
/// absolute error below 2e-7.
void gelu_erf(float* values, int64_t count);
void gelu_tanh(float* values, int64_t count);
void relu(float* values, int64_t count);
/// gradient *= derivative at values
void gelu_erf_gradient(const float* values, float* gradient, int64_t count);
void gelu_tanh_gradient(const float* values, float* gradient, int64_t count);
void relu_gradient(const float* values, float* gradient, int64_t count);

/// values = exp(values - shift); gives their sum.
float exponentials(float* values, int64_t count, float shift);

}  // namespace tessera::loops
