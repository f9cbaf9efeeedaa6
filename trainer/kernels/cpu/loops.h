#pragma once
#include <cstdint>

/// Plain loops over arrays that do not overlap, vectorised for AVX-512, AVX2 and plain x86-64, one of which
/// is chosen when the program starts. Without contraction to fused multiply-adds: results do not depend on
/// the machine. Free of torch, as this folder's *loops.cpp are compiled with options that a precompiled
/// header does not have.
namespace tessera::loops {

/// destination[i] = source[i] * scale
void load_float(const float* source, float* destination, int64_t count, float scale);
void load_bfloat16(const void* source, float* destination, int64_t count, float scale);
void load_half(const void* source, float* destination, int64_t count, float scale);

/// destination[i] = source[i], rounded to nearest even
void store_bfloat16(const float* source, void* destination, int64_t count);
void store_half(const float* source, void* destination, int64_t count);

/// In 16 interleaved float32 sums.
float sum_of_squares(const float* values, int64_t count);

/// average += weight * (value - average)
void average(float* average, const float* value, int64_t count, float weight);

struct AdamwConstants {
  float keep;     ///< 1 - learning_rate x weight_decay
  float weight1;  ///< 1 - beta1
  float beta2;
  float weight2;  ///< 1 - beta2
  float root;     ///< sqrt(1 - beta2^step)
  float epsilon;
  float step_size;  ///< learning_rate / (1 - beta1^step)
};
/// The operations of torch.optim.AdamW in their order, so that results agree to the last bits.
void adamw(float* value, float* average, float* square, const float* gradient, int64_t count,
           AdamwConstants constants);

struct SgdConstants {
  float learning_rate, weight_decay, momentum;
  bool nesterov;
};
/// `buffer` is null without momentum.
void sgd(float* value, float* buffer, const float* gradient, int64_t count, SgdConstants constants);

}  // namespace tessera::loops
