#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include "trainer/kernels/cpu/loops.h"
#include "trainer/kernels/cuda/launch.cuh"
#include "trainer/kernels/cuda/model_kernels.h"
#include "trainer/kernels/cuda/tensor_table.cuh"

// Two kernels a step: one thread block counts it and makes the bias corrections; then all parameters are stepped in
// one pass over memory. The arithmetic is the CPU's (loops::adamw), operation by operation and without fused
// multiply-adds: memory is what takes the time.
namespace tessera::cuda {
namespace {

constexpr int threads = 256;
constexpr int64_t tile = 4 * threads, chunk = 8 * tile;

struct AdamwEntry {
  const void* gradient;
  float *master, *average, *square;
  void* working;  // or null
  int64_t count;
  double learning_rate_scale, weight_decay;
  int first_block;
  int16_t age;
  at::ScalarType gradient_type, working_type;
};
using AdamwTable = TensorTable<AdamwEntry>;

struct Correction {
  double first;   // 1 - beta1^step
  double second;  // sqrt(1 - beta2^step)
};

// What does not differ from tensor to tensor.
struct AdamwCommon {
  double learning_rate;
  float weight1, beta2, weight2, epsilon;
  const float* gradient_scale;    // or null
  const Correction* corrections;  // by age
};

__device__ bool is_finite(const float* scale) { return scale == nullptr || fabsf(*scale) < INFINITY; }

__global__ void begin_kernel(float* steps, const float* first_steps, const float* gradient_scale, int ages,
                             Correction* corrections, double beta1, double beta2) {
  if (!is_finite(gradient_scale)) return;
  const float step = *steps + 1;
  __syncthreads();  // everybody has read it
  if (threadIdx.x == 0) *steps = step;
  for (int age = static_cast<int>(threadIdx.x); age < ages; age += threads) {
    const double taken = step - first_steps[age];
    corrections[age] = {1 - pow(beta1, taken), sqrt(1 - pow(beta2, taken))};
  }
}

// A thread has four elements of a tile. `whole`: neighbours, in one access; otherwise `threads` apart, so that the
// accesses of a warp are neighbours, and only those before `left`.
template <bool whole, class T>
__device__ void load(const T* source, int64_t left, float (&values)[4]) {
  if constexpr (whole) {
    T four[4];
    load_vector(source, four);
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = static_cast<float>(four[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = i * threads < left ? static_cast<float>(source[i * threads]) : 0.0f;
  }
}

template <bool whole, class T>
__device__ void store(const float (&values)[4], int64_t left, T* destination) {
  if constexpr (whole) {
    T four[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) four[i] = static_cast<T>(values[i]);
    store_vector(destination, four);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i * threads < left) destination[i * threads] = static_cast<T>(values[i]);
    }
  }
}

__device__ float product(float a, float b) { return __fmul_rn(a, b); }

__device__ void update(float& value, float& average, float& square, float gradient,
                       const loops::AdamwConstants& constants) {
  average += product(constants.weight1, gradient - average);
  square = product(square, constants.beta2) + product(product(constants.weight2, gradient), gradient);
  value = product(value, constants.keep) -
          product(constants.step_size, average) / (sqrtf(square) / constants.root + constants.epsilon);
}

template <bool whole>
__device__ void update_tile(const AdamwEntry& entry, int64_t start, float scale,
                            const loops::AdamwConstants& constants) {
  const int64_t first = start + (whole ? 4 : 1) * threadIdx.x, left = entry.count - first;
  float values[4], averages[4], squares[4], gradients[4];
  load<whole>(entry.master + first, left, values);
  load<whole>(entry.average + first, left, averages);
  load<whole>(entry.square + first, left, squares);
  visit_type(entry.gradient_type, [&](auto zero) {
    load<whole>(static_cast<const decltype(zero)*>(entry.gradient) + first, left, gradients);
  });
#pragma unroll
  for (int i = 0; i < 4; ++i) update(values[i], averages[i], squares[i], product(gradients[i], scale), constants);
  store<whole>(values, left, entry.master + first);
  store<whole>(averages, left, entry.average + first);
  store<whole>(squares, left, entry.square + first);
  if (entry.working == nullptr) return;
  visit_type(entry.working_type,
             [&](auto zero) { store<whole>(values, left, static_cast<decltype(zero)*>(entry.working) + first); });
}

__global__ void __launch_bounds__(threads) adamw_kernel(const __grid_constant__ AdamwTable table,
                                                        const AdamwCommon common) {
  if (!is_finite(common.gradient_scale)) return;
  const float scale = common.gradient_scale ? *common.gradient_scale : 1.0f;
  const AdamwEntry entry = table.of_block();
  const Correction correction = common.corrections[entry.age];
  const double learning_rate = common.learning_rate * entry.learning_rate_scale;
  const loops::AdamwConstants constants{static_cast<float>(1 - learning_rate * entry.weight_decay),
                                        common.weight1,
                                        common.beta2,
                                        common.weight2,
                                        static_cast<float>(correction.second),
                                        common.epsilon,
                                        static_cast<float>(learning_rate / correction.first)};
  const bool aligned = aligned_to_16(entry.gradient) && aligned_to_16(entry.master) && aligned_to_16(entry.average) &&
                       aligned_to_16(entry.square) && aligned_to_16(entry.working);
  const int64_t begin = static_cast<int64_t>(blockIdx.x - entry.first_block) * chunk;
  const int64_t end = begin + chunk < entry.count ? begin + chunk : entry.count;
  for (int64_t start = begin; start < end; start += tile) {
    if (aligned && start + tile <= end) {
      update_tile<true>(entry, start, scale, constants);
    } else {
      update_tile<false>(entry, start, scale, constants);
    }
  }
}

AdamwEntry entry_of(const AdamwTensors& tensors) {
  const bool copies = tensors.working.defined();
  TORCH_INTERNAL_ASSERT(tensors.gradient.numel() == tensors.master.numel());
  return {data_of(tensors.gradient),
          tensors.master.data_ptr<float>(),
          tensors.average.data_ptr<float>(),
          tensors.square.data_ptr<float>(),
          copies ? const_cast<void*>(data_of(tensors.working)) : nullptr,
          tensors.master.numel(),
          tensors.learning_rate_scale,
          tensors.weight_decay,
          0,
          static_cast<int16_t>(tensors.age),
          tensors.gradient.scalar_type(),
          copies ? tensors.working.scalar_type() : at::kFloat};
}

const float* scale_of(const AdamwStep& step) {
  return step.gradient_scale.defined() ? step.gradient_scale.const_data_ptr<float>() : nullptr;
}

// [ages] of Correction. Without bias correction betas are 0 here: 1 - 0^step is 1.
at::Tensor begin_step(const AdamwStep& step) {
  const int64_t ages = step.first_steps.numel();
  const at::Tensor corrections = at::empty({ages, 2}, step.steps.options().dtype(at::kDouble));
  launch(begin_kernel, 1, threads, step.steps.data_ptr<float>(), step.first_steps.const_data_ptr<float>(),
         scale_of(step), static_cast<int>(ages), static_cast<Correction*>(corrections.data_ptr()),
         step.bias_correction ? step.beta1 : 0.0, step.bias_correction ? step.beta2 : 0.0);
  return corrections;
}

}  // namespace

void adamw(const std::vector<AdamwTensors>& tensors, const AdamwStep& step) {
  const DeviceGuard guard(step.steps.device());
  const at::Tensor corrections = begin_step(step);
  const AdamwCommon common{step.learning_rate,
                           static_cast<float>(1 - step.beta1),
                           static_cast<float>(step.beta2),
                           static_cast<float>(1 - step.beta2),
                           static_cast<float>(step.epsilon),
                           scale_of(step),
                           static_cast<const Correction*>(corrections.const_data_ptr())};
  AdamwTable table;
  const auto run = [&] {
    if (table.size > 0) launch(adamw_kernel, table.num_blocks, threads, table, common);
    table.clear();
  };
  for (const AdamwTensors& each : tensors) {
    if (each.master.numel() == 0) continue;
    table.add(entry_of(each), num_chunks(each.master.numel(), chunk));
    if (table.full()) run();
  }
  run();
}

}  // namespace tessera::cuda
