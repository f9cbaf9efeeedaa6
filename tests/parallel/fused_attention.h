#pragma once
// The fused attention kernels of LibTorch for CUDA, written out in float64 on the CPU: with the shapes,
// strides and demands of theirs (aten/src/ATen/native/transformers/cuda of LibTorch 2.11), which a call that
// is not as they want it fails. Included once per program: it registers them.
#include <gtest/gtest.h>
#include <torch/library.h>
#include <torch/torch.h>

namespace tessera::fused_attention {
constexpr double infinity = std::numeric_limits<double>::infinity();

struct Rows {
  at::Tensor output, log_sum;  // float64, [batch, heads, queries, ...]
};

inline at::Tensor scores_of(const at::Tensor& query, const at::Tensor& key, const at::Tensor& bias,
                            bool causal) {
  at::Tensor scores = at::matmul(query.to(at::kDouble), key.to(at::kDouble).transpose(-2, -1)) /
                      std::sqrt(double(query.size(-1)));
  if (bias.defined()) scores = scores + bias;
  if (!causal) return scores;
  return scores + torch::full({query.size(-2), key.size(-2)}, -infinity, at::kDouble).triu(1);
}

/// Rows without keys: output and log_sum 0.
inline Rows forward(const std::array<at::Tensor, 3>& x, const at::Tensor& bias, bool causal) {
  const at::Tensor scores = scores_of(x[0], x[1], bias, causal);
  const at::Tensor log_sum = scores.logsumexp(-1);
  const at::Tensor finite = log_sum.masked_fill(log_sum == -infinity, 0);
  return {at::matmul((scores - finite.unsqueeze(-1)).exp(), x[2].to(at::kDouble)), finite};
}

inline std::array<at::Tensor, 3> backward(const std::array<at::Tensor, 3>& x, const at::Tensor& bias,
                                          bool causal, const Rows& rows, const at::Tensor& gradient) {
  const at::Tensor outer = gradient.to(at::kDouble);
  const at::Tensor p =
      (scores_of(x[0], x[1], bias, causal) - rows.log_sum.to(at::kDouble).unsqueeze(-1)).exp();
  const at::Tensor shift = (outer * rows.output.to(at::kDouble)).sum(-1, true);
  const at::Tensor scores = (at::matmul(outer, x[2].to(at::kDouble).transpose(-2, -1)) - shift) * p /
                            std::sqrt(double(x[0].size(-1)));
  return {at::matmul(scores, x[1].to(at::kDouble)),
          at::matmul(scores.transpose(-2, -1), x[0].to(at::kDouble)), at::matmul(p.transpose(-2, -1), outer)};
}

/// [batch, heads, queries, head_size] as [batch, queries, heads, head_size] in memory.
inline at::Tensor rows_first(const at::Tensor& x, at::ScalarType type) {
  return x.to(type).transpose(1, 2).contiguous().transpose(1, 2);
}

inline void check_flash(const std::array<at::Tensor, 3>& x, double dropout) {
  const at::ScalarType type = x[0].scalar_type();
  TORCH_CHECK(type == at::kBFloat16 || type == at::kHalf, "flash: type");
  TORCH_CHECK(x[0].size(-1) % 8 == 0 && x[0].size(-1) <= 256, "flash: head size");
  TORCH_CHECK(dropout == 0, "flash: dropout");
  for (const at::Tensor& each : x)
    TORCH_CHECK(each.scalar_type() == type && each.stride(-1) == 1, "flash: query, key or value");
}

using FlashForward = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, c10::SymInt, c10::SymInt,
                                at::Tensor, at::Tensor, at::Tensor>;

inline FlashForward flash(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                          double dropout, bool causal, bool debug, std::optional<double> scale) {
  check_flash({query, key, value}, dropout);
  TORCH_CHECK(!debug && !scale, "flash: options");
  const Rows rows = forward({query, key, value}, {}, causal);
  return {rows_first(rows.output, query.scalar_type()),
          rows.log_sum.to(at::kFloat),
          {},
          {},
          query.size(2),
          key.size(2),
          at::empty({2}, at::kUInt64),
          at::empty({}, at::kUInt64),
          at::empty({0})};
}

inline std::tuple<at::Tensor, at::Tensor, at::Tensor> flash_backward(
    const at::Tensor& gradient, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const at::Tensor& output, const at::Tensor& log_sum, const at::Tensor& starts, const at::Tensor&,
    c10::SymInt, c10::SymInt, double dropout, bool causal, const at::Tensor& state, const at::Tensor&,
    std::optional<double>) {
  check_flash({query, key, value}, dropout);
  const at::ScalarType type = query.scalar_type();
  TORCH_CHECK(!starts.defined() && state.scalar_type() == at::kUInt64, "flash: starts, state");
  TORCH_CHECK(output.scalar_type() == type && output.sizes() == query.sizes(), "flash: output");
  TORCH_CHECK(gradient.scalar_type() == type && gradient.sizes() == query.sizes(), "flash: gradient");
  TORCH_CHECK(log_sum.scalar_type() == at::kFloat && log_sum.is_contiguous() &&
                  log_sum.sizes() == query.sizes().slice(0, 3),
              "flash: log_sum");
  const auto result = backward({query, key, value}, {}, causal, {output, log_sum}, gradient);
  return {rows_first(result[0], type), rows_first(result[1], type), rows_first(result[2], type)};
}

inline void check_efficient(const std::array<at::Tensor, 3>& x, const at::Tensor& bias, double dropout) {
  const at::Tensor& query = x[0];
  const bool single = query.scalar_type() == at::kFloat;
  TORCH_CHECK(single || query.scalar_type() == at::kBFloat16 || query.scalar_type() == at::kHalf,
              "efficient: type");
  TORCH_CHECK(query.size(3) % (single ? 4 : 8) == 0, "efficient: head size");
  TORCH_CHECK(dropout == 0, "efficient: dropout");
  for (const at::Tensor& each : x)
    TORCH_CHECK(each.scalar_type() == query.scalar_type() && each.stride(3) == 1,
                "efficient: query, key or value");
  if (!bias.defined()) return;
  TORCH_CHECK(bias.scalar_type() == query.scalar_type(), "efficient: the bias' type");
  const std::vector<int64_t> sizes{query.size(0), query.size(1), query.size(2), x[1].size(2)};
  TORCH_CHECK(bias.sizes() == at::IntArrayRef(sizes) && bias.stride(3) == 1, "efficient: the bias' shape");
  for (int dim = 0; dim < 3; ++dim) TORCH_CHECK(bias.stride(dim) % 8 == 0, "efficient: the bias' rows");
  TORCH_CHECK(bias.storage_offset() % 8 == 0, "efficient: the bias' begin");
}

inline int64_t padded_queries(int64_t queries) { return (queries + 31) / 32 * 32; }

inline std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> efficient(
    const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const std::optional<at::Tensor>& given, bool log_sum, double dropout, bool causal,
    std::optional<double>) {
  const at::Tensor bias = given.value_or(at::Tensor());
  check_efficient({query, key, value}, bias, dropout);
  const Rows rows = forward({query, key, value}, bias, causal);
  const int64_t beyond = padded_queries(query.size(2)) - query.size(2);
  const at::Tensor padded = at::constant_pad_nd(rows.log_sum.to(at::kFloat), {0, beyond}, infinity);
  return {rows_first(rows.output, query.scalar_type()), log_sum ? padded : padded.narrow(2, 0, 0).clone(),
          at::empty({}, at::kLong), at::empty({}, at::kLong)};
}

inline std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> efficient_backward(
    const at::Tensor& gradient, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const at::Tensor& bias, const at::Tensor& output, const at::Tensor& log_sum, const at::Tensor&,
    const at::Tensor&, double dropout, std::array<bool, 4> wanted, bool causal, std::optional<double>) {
  check_efficient({query, key, value}, bias, dropout);
  const at::ScalarType type = query.scalar_type();
  const int64_t queries = query.size(2);
  TORCH_CHECK(gradient.scalar_type() == type && gradient.sizes() == query.sizes() && !wanted[3],
              "efficient: gradient");
  // The kernel computes the strides of rows and heads itself.
  TORCH_CHECK(output.scalar_type() == type && output.sizes() == query.sizes() &&
                  output.select(0, 0).transpose(0, 1).is_contiguous(),
              "efficient: output");
  TORCH_CHECK(log_sum.scalar_type() == at::kFloat && log_sum.stride(2) == 1 && log_sum.stride(0) % 8 == 0 &&
                  log_sum.stride(1) % 8 == 0 && log_sum.size(2) == padded_queries(queries),
              "efficient: log_sum");
  TORCH_CHECK((log_sum.narrow(2, queries, log_sum.size(2) - queries) == infinity).all().item<bool>(),
              "efficient: log_sum beyond the queries");
  const auto result =
      backward({query, key, value}, bias, causal, {output, log_sum.narrow(2, 0, queries)}, gradient);
  return {rows_first(result[0], type), rows_first(result[1], type), rows_first(result[2], type), {}};
}

using PackedForward = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor, at::Tensor>;

/// Rows [tokens, heads, head_size] of one sequence as [heads, length, head_size].
inline at::Tensor sequence_of(const at::Tensor& x, const at::Tensor& starts, int64_t i) {
  const int64_t first = starts[i].item<int64_t>();
  return x.narrow(0, first, starts[i + 1].item<int64_t>() - first).transpose(0, 1);
}

inline void check_packed(const std::array<at::Tensor, 3>& x, const at::Tensor& starts, int64_t longest,
                         double dropout) {
  check_flash(x, dropout);
  TORCH_CHECK(x[0].dim() == 3 && starts.scalar_type() == at::kInt && starts.is_contiguous(),
              "packed: starts");
  TORCH_CHECK(starts[-1].item<int64_t>() == x[0].size(0), "packed: tokens");
  TORCH_CHECK(starts.diff().max().item<int64_t>() == longest, "packed: longest");
}

inline PackedForward packed(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const std::optional<at::Tensor>& starts,
                            const std::optional<at::Tensor>& key_starts, c10::SymInt longest, c10::SymInt,
                            double dropout, bool causal, bool, std::optional<double>,
                            std::optional<c10::SymInt>, std::optional<c10::SymInt>,
                            const std::optional<at::Tensor>&, const std::optional<at::Tensor>&) {
  check_packed({query, key, value}, *starts, longest.expect_int(), dropout);
  TORCH_CHECK(at::equal(*starts, *key_starts), "packed: keys");
  const at::Tensor output = at::empty_like(query);
  const at::Tensor log_sum = at::empty({query.size(1), query.size(0)}, at::kFloat);
  for (int64_t i = 0; i + 1 < starts->size(0); ++i) {
    const int64_t first = (*starts)[i].item<int64_t>();
    const Rows rows = forward(
        {sequence_of(query, *starts, i), sequence_of(key, *starts, i), sequence_of(value, *starts, i)}, {},
        causal);
    sequence_of(output, *starts, i).copy_(rows.output);
    log_sum.narrow(1, first, rows.log_sum.size(1)).copy_(rows.log_sum);
  }
  return {output, log_sum, at::empty({2}, at::kUInt64), at::empty({}, at::kUInt64), at::empty({0})};
}

inline std::tuple<at::Tensor, at::Tensor, at::Tensor> packed_backward(
    const at::Tensor& gradient, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
    const at::Tensor& output, const at::Tensor& log_sum, const at::Tensor& starts,
    const at::Tensor& key_starts, c10::SymInt longest, c10::SymInt, double dropout, bool causal,
    const at::Tensor&, const at::Tensor&, std::optional<double>, std::optional<c10::SymInt>,
    std::optional<c10::SymInt>) {
  check_packed({query, key, value}, starts, longest.expect_int(), dropout);
  TORCH_CHECK(at::equal(starts, key_starts), "packed: keys");
  TORCH_CHECK(gradient.sizes() == query.sizes() && output.sizes() == query.sizes(),
              "packed: output, gradient");
  TORCH_CHECK(log_sum.is_contiguous() && log_sum.size(0) == query.size(1), "packed: log_sum");
  const std::array<at::Tensor, 3> result{at::empty_like(query), at::empty_like(key), at::empty_like(value)};
  for (int64_t i = 0; i + 1 < starts.size(0); ++i) {
    const auto of = [&](const at::Tensor& x) { return sequence_of(x, starts, i); };
    const at::Tensor sums = of(log_sum.t().unsqueeze(2)).squeeze(2);
    const auto parts =
        backward({of(query), of(key), of(value)}, {}, causal, {of(output), sums}, of(gradient));
    for (size_t j = 0; j < 3; ++j) of(result[j]).copy_(parts[j]);
  }
  return {result[0], result[1], result[2]};
}

TORCH_LIBRARY_IMPL(aten, CPU, library) {
  library.impl("_scaled_dot_product_flash_attention", flash);
  library.impl("_scaled_dot_product_flash_attention_backward", flash_backward);
  library.impl("_scaled_dot_product_efficient_attention", efficient);
  library.impl("_scaled_dot_product_efficient_attention_backward", efficient_backward);
  library.impl("_flash_attention_forward", packed);
  library.impl("_flash_attention_backward", packed_backward);
}

}  // namespace tessera::fused_attention
