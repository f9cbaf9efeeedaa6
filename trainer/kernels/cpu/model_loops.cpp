#include "trainer/kernels/cpu/model_loops.h"

#include "trainer/kernels/cpu/clones.h"

namespace tessera::loops {
namespace {

constexpr int64_t lanes = 16;

// e^x for |x| <= 87 and 0 or large beyond, without branches. The polynomial is the Taylor series on |r| <= ln
// 2 / 2.
TESSERA_INLINE float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  const float shifted =
      x * 1.44269504088896341f + 12582912.0f;  // 1.5 x 2^23: rounds to the nearest whole number
  const float whole = shifted - 12582912.0f;
  float r = x - whole * 0.693359375f;
  r = r + whole * 2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const auto power = static_cast<uint32_t>(static_cast<int32_t>(whole) + 127) << 23;
  return p * __builtin_bit_cast(float, power);
}

struct Normal {
  float cumulative;   // of the standard normal distribution
  float exponential;  // e^(-x^2 / 2)
};
TESSERA_INLINE Normal normal(float x) {
  const float z = __builtin_fabsf(x) * 0.70710678118654752f;
  const float t = 1.0f / (1.0f + 0.3275911f * z);
  const float e = fast_exp(-z * z);
  float p = 1.061405429f;
  p = p * t - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const float tail = 0.5f * p * t * e;
  return {x < 0 ? tail : 1.0f - tail, e};
}

constexpr float root_two_over_pi = 0.79788456080286536f;
constexpr float cubic = 0.044715f;
TESSERA_INLINE float tanh_inner(float x) {
  const float u = root_two_over_pi * (x + cubic * x * x * x);
  return 1.0f - 2.0f / (fast_exp(2.0f * u) + 1.0f);
}

struct Words {
  uint32_t c0[lanes], c1[lanes], c2[lanes], c3[lanes];
};
TESSERA_INLINE void multiply(const uint32_t* __restrict a, uint32_t factor, uint32_t* __restrict high,
                             uint32_t* __restrict low) {
  for (int64_t i = 0; i < lanes; ++i) {
    const uint64_t product = uint64_t{factor} * a[i];
    high[i] = static_cast<uint32_t>(product >> 32);
    low[i] = static_cast<uint32_t>(product);
  }
}
// Philox4x32-10 on 16 counters; recipes/random.h has it for one.
TESSERA_INLINE void philox_round(Words& w, uint32_t key0, uint32_t key1) {
  uint32_t high0[lanes], low0[lanes], high1[lanes], low1[lanes];
  multiply(w.c0, 0xD2511F53, high0, low0);
  multiply(w.c2, 0xCD9E8D57, high1, low1);
  for (int64_t i = 0; i < lanes; ++i) {
    w.c0[i] = high1[i] ^ w.c1[i] ^ key0;
    w.c2[i] = high0[i] ^ w.c3[i] ^ key1;
    w.c1[i] = low1[i];
    w.c3[i] = low0[i];
  }
}

}  // namespace

TESSERA_CLONES void dropout_bits(const DropoutRow& row, int64_t groups, uint32_t* __restrict bits) {
  const auto low = static_cast<uint32_t>(row.sample), high = static_cast<uint32_t>(row.sample >> 32);
  for (int64_t first = 0; first < groups; first += lanes) {
    Words w;
    for (int64_t i = 0; i < lanes; ++i) {
      w.c0[i] = low;
      w.c1[i] = high;
      w.c2[i] = row.position;
      w.c3[i] = row.first_group + static_cast<uint32_t>(first + i);
    }
    auto key0 = static_cast<uint32_t>(row.key), key1 = static_cast<uint32_t>(row.key >> 32);
    for (int round = 0; round < 10; ++round) {
      philox_round(w, key0, key1);
      key0 += 0x9E3779B9;
      key1 += 0xBB67AE85;
    }
    const int64_t count = groups - first < lanes ? groups - first : lanes;
    for (int64_t i = 0; i < count; ++i) {
      bits[4 * (first + i)] = w.c0[i];
      bits[4 * (first + i) + 1] = w.c1[i];
      bits[4 * (first + i) + 2] = w.c2[i];
      bits[4 * (first + i) + 3] = w.c3[i];
    }
  }
}

TESSERA_CLONES void apply_dropout(float* __restrict values, const uint16_t* __restrict bits, int64_t count,
                                  uint32_t threshold, float scale) {
  for (int64_t i = 0; i < count; ++i) values[i] = bits[i] >= threshold ? values[i] * scale : 0.0f;
}

TESSERA_CLONES void add(float* __restrict values, const float* __restrict other, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] += other[i];
}

TESSERA_CLONES void scale(float* values, int64_t count, float factor) {
  for (int64_t i = 0; i < count; ++i) values[i] *= factor;
}

TESSERA_CLONES float sum(const float* values, int64_t count) {
  float sums[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (int64_t lane = 0; lane < lanes; ++lane) sums[lane] += values[i + lane];
  }
  for (; i < count; ++i) sums[i % lanes] += values[i];
  float total = 0;
  for (const float each : sums) total += each;
  return total;
}

TESSERA_CLONES float largest(const float* values, int64_t count) {
  float best[lanes];
  for (float& each : best) each = values[0];
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      best[lane] = values[i + lane] > best[lane] ? values[i + lane] : best[lane];
    }
  }
  for (; i < count; ++i) best[0] = values[i] > best[0] ? values[i] : best[0];
  float result = best[0];
  for (const float each : best) result = each > result ? each : result;
  return result;
}

TESSERA_CLONES float squared_distance(const float* values, int64_t count, float mean) {
  float sums[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const float distance = values[i + lane] - mean;
      sums[lane] += distance * distance;
    }
  }
  for (; i < count; ++i) sums[i % lanes] += (values[i] - mean) * (values[i] - mean);
  float total = 0;
  for (const float each : sums) total += each;
  return total;
}

TESSERA_CLONES void normalise(const float* __restrict values, const NormRow& norm,
                              const float* __restrict shift, float* __restrict out, int64_t count) {
  const float mean = norm.mean, rstd = norm.rstd;
  const float* __restrict weight = norm.weight;
  for (int64_t i = 0; i < count; ++i) out[i] = (values[i] - mean) * rstd * weight[i] + shift[i];
}

TESSERA_CLONES NormSums norm_sums(const float* __restrict gradient, const float* __restrict values,
                                  const NormRow& norm, float* __restrict weight_gradient,
                                  float* __restrict shift_gradient, int64_t count) {
  const float mean = norm.mean, rstd = norm.rstd;
  const float* __restrict weight = norm.weight;
  float weighted[lanes] = {}, weighted_scaled[lanes] = {};
  const auto one = [&](int64_t i, int64_t lane) __attribute__((always_inline)) {
    const float scaled = (values[i] - mean) * rstd;
    weight_gradient[i] += gradient[i] * scaled;
    shift_gradient[i] += gradient[i];
    const float product = gradient[i] * weight[i];
    weighted[lane] += product;
    weighted_scaled[lane] += product * scaled;
  };
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (int64_t lane = 0; lane < lanes; ++lane) one(i + lane, lane);
  }
  for (; i < count; ++i) one(i, i % lanes);
  NormSums total;
  for (int64_t lane = 0; lane < lanes; ++lane) {
    total.weighted += weighted[lane];
    total.weighted_scaled += weighted_scaled[lane];
  }
  return total;
}

TESSERA_CLONES void norm_gradient(const float* __restrict gradient, const float* __restrict values,
                                  const NormRow& norm, NormSums means, float* __restrict total,
                                  int64_t count) {
  const float mean = norm.mean, rstd = norm.rstd;
  const float* __restrict weight = norm.weight;
  for (int64_t i = 0; i < count; ++i) {
    const float scaled = (values[i] - mean) * rstd;
    total[i] += (gradient[i] * weight[i] - means.weighted - scaled * means.weighted_scaled) * rstd;
  }
}

TESSERA_CLONES void gelu_erf(float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = values[i] * normal(values[i]).cumulative;
}

TESSERA_CLONES void gelu_tanh(float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = 0.5f * values[i] * (1.0f + tanh_inner(values[i]));
}

TESSERA_CLONES void relu(float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) values[i] = values[i] > 0 ? values[i] : 0.0f;
}

TESSERA_CLONES void gelu_erf_gradient(const float* __restrict values, float* __restrict gradient,
                                      int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const Normal n = normal(values[i]);
    gradient[i] *= n.cumulative + values[i] * 0.39894228040143268f * n.exponential;
  }
}

TESSERA_CLONES void gelu_tanh_gradient(const float* __restrict values, float* __restrict gradient,
                                       int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float x = values[i], t = tanh_inner(x);
    const float inner = root_two_over_pi * (1.0f + 3.0f * cubic * x * x);
    gradient[i] *= 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * inner;
  }
}

TESSERA_CLONES void relu_gradient(const float* __restrict values, float* __restrict gradient, int64_t count) {
  for (int64_t i = 0; i < count; ++i) gradient[i] = values[i] > 0 ? gradient[i] : 0.0f;
}

TESSERA_CLONES float exponentials(float* values, int64_t count, float shift) {
  float sums[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const float e = fast_exp(values[i + lane] - shift);
      values[i + lane] = e;
      sums[lane] += e;
    }
  }
  for (; i < count; ++i) {
    values[i] = fast_exp(values[i] - shift);
    sums[i % lanes] += values[i];
  }
  float total = 0;
  for (const float each : sums) total += each;
  return total;
}

}  // namespace tessera::loops
