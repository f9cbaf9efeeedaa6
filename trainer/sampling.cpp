#include "trainer/sampling.h"

#include <torch/torch.h>

#include <cmath>
#include <limits>

namespace tessera {
namespace {

constexpr float excluded = -std::numeric_limits<float>::infinity();

void penalise(float* logits, int64_t vocab, const std::vector<int32_t>& context, double penalty) {
  std::vector<bool> done(static_cast<size_t>(vocab));
  const auto factor = static_cast<float>(penalty);
  for (const int32_t token : context) {
    const auto index = static_cast<size_t>(token);
    if (done[index]) continue;
    done[index] = true;
    logits[index] = logits[index] < 0 ? logits[index] * factor : logits[index] / factor;
  }
}

at::Tensor keep_top_p(const at::Tensor& logits, double top_p) {
  auto [sorted, order] = logits.sort(/*dim=*/-1, /*descending=*/false);
  at::Tensor remove = sorted.softmax(-1).cumsum(-1) <= 1 - top_p;
  remove[-1] = false;
  return logits.masked_fill(at::zeros_like(remove).scatter_(0, order, remove), excluded);
}

}  // namespace

at::Tensor filter_logits(const at::Tensor& logits, const std::vector<int32_t>& context,
                         const SamplingOptions& options) {
  const torch::NoGradGuard no_grad;
  at::Tensor scores =
      logits.detach().to(at::kCPU, at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
  if (options.repetition_penalty != 1) {
    penalise(scores.data_ptr<float>(), scores.numel(), context, options.repetition_penalty);
  }
  if (options.temperature != 1 && options.temperature > 0) scores.div_(options.temperature);
  if (options.top_k > 0 && options.top_k < scores.numel()) {
    const at::Tensor least = std::get<0>(scores.topk(options.top_k)).min();
    scores.masked_fill_(scores < least, excluded);
  }
  return options.top_p < 1 ? keep_top_p(scores, options.top_p) : scores;
}

int32_t choose_token(const at::Tensor& logits, const std::vector<int32_t>& context,
                     const SamplingOptions& options, RandomStream& random) {
  const at::Tensor scores = filter_logits(logits, context, options);
  const auto likeliest = scores.argmax().item<int64_t>();
  if (options.temperature == 0) return static_cast<int32_t>(likeliest);
  const at::Tensor probabilities = scores.to(at::kDouble).softmax(-1);
  const double* p = probabilities.const_data_ptr<double>();
  double left = random.uniform();
  for (int64_t i = 0; i < probabilities.numel(); ++i) {
    left -= p[i];
    if (left < 0 && p[i] > 0) return static_cast<int32_t>(i);
  }
  return static_cast<int32_t>(likeliest);  // rounding left a rest
}

}  // namespace tessera
