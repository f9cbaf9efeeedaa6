#include "trainer/kernels/cpu/loops.h"

// Sanitizers cannot choose at start: their runtime is not up yet when the choice is made.
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define TESSERA_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TESSERA_CLONES
#endif

namespace tessera::loops {

TESSERA_CLONES void load_float(const float* __restrict source, float* __restrict destination, int64_t count,
                               float scale) {
  for (int64_t i = 0; i < count; ++i) destination[i] = source[i] * scale;
}

TESSERA_CLONES void load_bfloat16(const void* __restrict source, float* __restrict destination, int64_t count,
                                  float scale) {
  const auto* bits = static_cast<const uint16_t*>(source);
  for (int64_t i = 0; i < count; ++i)
    destination[i] = __builtin_bit_cast(float, uint32_t{bits[i]} << 16) * scale;
}

TESSERA_CLONES void load_half(const void* __restrict source, float* __restrict destination, int64_t count,
                              float scale) {
  const auto* halves = static_cast<const _Float16*>(source);
  for (int64_t i = 0; i < count; ++i) destination[i] = static_cast<float>(halves[i]) * scale;
}

TESSERA_CLONES void store_bfloat16(const float* __restrict source, void* __restrict destination,
                                   int64_t count) {
  auto* halves = static_cast<uint16_t*>(destination);
  for (int64_t i = 0; i < count; ++i) {
    const auto bits = __builtin_bit_cast(uint32_t, source[i]);
    const uint32_t rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    // A NaN must not round up to infinity or wrap around.
    halves[i] = static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : rounded);
  }
}

TESSERA_CLONES void store_half(const float* __restrict source, void* __restrict destination, int64_t count) {
  auto* halves = static_cast<_Float16*>(destination);
  for (int64_t i = 0; i < count; ++i) halves[i] = static_cast<_Float16>(source[i]);
}

TESSERA_CLONES float sum_of_squares(const float* values, int64_t count) {
  constexpr int64_t lanes = 16;
  float sums[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (int64_t lane = 0; lane < lanes; ++lane) sums[lane] += values[i + lane] * values[i + lane];
  }
  for (; i < count; ++i) sums[i % lanes] += values[i] * values[i];
  float total = 0;
  for (const float sum : sums) total += sum;
  return total;
}

TESSERA_CLONES void average(float* __restrict average, const float* __restrict value, int64_t count,
                            float weight) {
  for (int64_t i = 0; i < count; ++i) average[i] += weight * (value[i] - average[i]);
}

TESSERA_CLONES void adamw(float* __restrict value, float* __restrict average, float* __restrict square,
                          const float* __restrict gradient, int64_t count, AdamwConstants c) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = gradient[i];
    const float m = average[i] + c.weight1 * (g - average[i]);
    const float v = square[i] * c.beta2 + c.weight2 * g * g;
    average[i] = m;
    square[i] = v;
    value[i] = value[i] * c.keep - c.step_size * m / (__builtin_sqrtf(v) / c.root + c.epsilon);
  }
}

TESSERA_CLONES void sgd_plain(float* __restrict value, const float* __restrict gradient, int64_t count,
                              SgdConstants c) {
  for (int64_t i = 0; i < count; ++i) value[i] -= c.learning_rate * (gradient[i] + c.weight_decay * value[i]);
}

TESSERA_CLONES void sgd_momentum(float* __restrict value, float* __restrict buffer,
                                 const float* __restrict gradient, int64_t count, SgdConstants c) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = gradient[i] + c.weight_decay * value[i];
    const float b = c.momentum * buffer[i] + g;
    buffer[i] = b;
    value[i] -= c.learning_rate * (c.nesterov ? g + c.momentum * b : b);
  }
}

void sgd(float* value, float* buffer, const float* gradient, int64_t count, SgdConstants constants) {
  if (buffer) return sgd_momentum(value, buffer, gradient, count, constants);
  sgd_plain(value, gradient, count, constants);
}

}  // namespace tessera::loops
