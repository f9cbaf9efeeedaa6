#include "parallel/context_attention.h"

#include <ATen/Functions.h>
#include <fmt/format.h>

#include "parallel/attention_kernel.h"
#include "parallel/context_methods.h"

namespace tessera {
namespace {

void require_attention(bool holds, const char* what) {
  if (!holds) throw std::logic_error(fmt::format("context attention: {}", what));
}

void check_mask(const at::Tensor& mask, at::ScalarType type, const AttentionInput& input, int size) {
  if (!mask.defined()) return;
  require_attention(mask.dim() == 2 && mask.size(0) == input.query.size(0) &&
                        mask.size(1) == input.query.size(2) * size && mask.scalar_type() == type,
                    "key_mask must be bool, documents int64, both [batch, whole sequence]");
}

void check_context(const AttentionInput& input, int size, const ContextAttentionOptions& options) {
  const at::Tensor& query = input.query;
  require_attention(
      query.dim() == 4 && query.sizes() == input.key.sizes() && query.sizes() == input.value.sizes(),
      "query, key and value must have the same four dims");
  require_attention(
      query.scalar_type() == input.key.scalar_type() && query.scalar_type() == input.value.scalar_type(),
      "query, key and value differ in type");
  check_mask(options.key_mask, at::kBool, input, size);
  check_mask(options.documents, at::kLong, input, size);
  require_attention(options.method != ContextMethod::ulysses || query.size(1) % size == 0,
                    "the number of heads must be divisible by the number of ranks");
  require_attention(size == 1 || !context_zigzag(options.method, options.causal) || query.size(2) % 2 == 0,
                    "a causal ring needs two equal chunks per rank");
}

}  // namespace

at::Tensor allowed_keys(const MaskParts& parts) {
  at::Tensor allowed;
  if (parts.key_mask.defined()) allowed = parts.key_mask.unsqueeze(1).unsqueeze(1);
  if (!parts.query_documents.defined()) return allowed;
  const at::Tensor same =
      parts.query_documents.unsqueeze(2).eq(parts.key_documents.unsqueeze(1)).unsqueeze(1);
  return allowed.defined() ? same.logical_and(allowed) : same;
}

at::Tensor causally_allowed(const at::Tensor& allowed) {
  return allowed.expand({-1, -1, allowed.size(3), -1}).tril();
}

at::Tensor whole_attention(const AttentionInput& input, const ContextAttentionOptions& options) {
  at::Tensor allowed = allowed_keys({options.key_mask, options.documents, options.documents});
  if (!allowed.defined()) return dense_attention(input.query, input.key, input.value, {}, options.causal);
  if (options.causal) allowed = causally_allowed(allowed);
  // Not every kernel gives zeros to a row without keys, and finite gradients: let it see all of them and drop
  // what comes of it.
  const at::Tensor empty_rows = allowed.any(3, /*keepdim=*/true).logical_not_();
  return dense_attention(input.query, input.key, input.value, allowed.logical_or(empty_rows),
                         /*causal=*/false)
      .masked_fill(empty_rows, 0);
}

at::Tensor context_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                             const Communicator& group, const ContextAttentionOptions& options) {
  const AttentionInput input{query, key, value};
  check_context(input, group.size(), options);
  if (group.size() == 1) return whole_attention(input, options);
  return options.method == ContextMethod::ring ? ring_attention(input, group, options)
                                               : ulysses_attention(input, group, options);
}

}  // namespace tessera
