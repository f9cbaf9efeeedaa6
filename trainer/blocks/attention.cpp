#include "trainer/blocks/attention.h"

#include <torch/torch.h>

#include <cmath>

#include "parallel/attention_kernel.h"
#include "trainer/blocks/packed_attention.h"

namespace tessera {
namespace {

// Puts new keys or values [batch, heads, n, size] behind those seen before and returns all of them.
at::Tensor remember(at::Tensor& store, const at::Tensor& fresh, int64_t length) {
  store.slice(2, length, length + fresh.size(2)).copy_(fresh);
  return store.slice(2, 0, length + fresh.size(2));
}

at::Tensor causal_bias(int64_t queries, int64_t keys, const at::Tensor& like) {
  return at::full({queries, keys}, -std::numeric_limits<double>::infinity(), like.options())
      .triu(keys - queries + 1);
}

bool is_packable(const at::Tensor& joined, int64_t head_size) {
  return choose_kernel({joined.device().type(), joined.scalar_type(), head_size, /*biased=*/false}) ==
         AttentionKernel::flash;
}

// Heads [batch, heads, sequence, size] back to hidden states.
at::Tensor rows_of(const at::Tensor& heads) {
  return heads.transpose(1, 2).reshape({heads.size(0) * heads.size(2), heads.size(1) * heads.size(3)});
}

}  // namespace

// probabilities [batch, heads, queries, keys] as rows of keys: what drops depends on sample, query and head,
// whichever of the heads are here and however long the rows are.
DropoutSite Attention::probability_site(const at::Tensor& probabilities, const Context& context) const {
  DropoutSite site = dropout_.at(context);
  const int64_t heads = probabilities.size(1), queries = probabilities.size(2);
  const int64_t first_head = context.split ? context.split->first_of(config_.num_heads) : 0;
  const auto options = context.samples.options();
  const at::Tensor query = at::arange(queries, options) + context.first_position;
  const at::Tensor head = at::arange(first_head, first_head + heads, options);
  site.sequence = heads * queries;
  site.positions = (query.unsqueeze(0) * config_.num_heads + head.unsqueeze(1)).view({-1});
  return site;
}

Attention::Attention(const std::string& name, const AttentionConfig& config)
    : config_(config), dropout_(name + ".probabilities", config.dropout), name_(name) {
  const int64_t hidden = config.hidden_size;
  query_ = register_module("query", std::make_shared<Linear>(hidden, hidden));
  key_ = register_module("key", std::make_shared<Linear>(hidden, hidden));
  value_ = register_module("value", std::make_shared<Linear>(hidden, hidden));
  output_ = register_module("output", std::make_shared<Linear>(hidden, hidden));
}

void Attention::add_lora(const LoraConfig& config) {
  const auto input = register_module("lora", std::make_shared<Lora>(name_, config));
  input->add_input(config_.hidden_size);
  for (const auto& layer : {query_, key_, value_}) {
    layer->lora = layer->register_module("lora", std::make_shared<Lora>(name_, config));
    layer->lora->add_output(config_.hidden_size);
    layer->lora->share(input);
  }
}

at::Tensor Attention::forward(const at::Tensor& x, const Context& context) const {
  // The projections may be split over ranks: the local width, not hidden_size, says how many heads are here.
  const int64_t width = query_->weight.size(0);
  const int64_t head_size = config_.hidden_size / config_.num_heads;
  const int64_t sequence = context.sequence_inside();
  const at::Tensor joined = project_into({query_.get(), key_.get(), value_.get()}, x, context, Biases::added);
  const bool unfused = config_.dropout > 0 && context.dropout.enabled;
  if (!unfused && context.packing.defined() && is_packable(joined, head_size))
    return leave(ops::packed_attention(joined, context.packing, head_size, config_.causal), context);
  const auto heads = joined.view({context.batch, sequence, 3, width / head_size, head_size}).unbind(2);
  const at::Tensor query = heads[0].transpose(1, 2);
  at::Tensor key = heads[1].transpose(1, 2), value = heads[2].transpose(1, 2);
  if (context.cache) {
    key = remember(context.cache->keys[config_.layer], key, context.cache->length);
    value = remember(context.cache->values[config_.layer], value, context.cache->length);
  }
  if (context.across) {
    const ContextAttentionOptions options{context.across->method, config_.causal, context.key_mask, {}};
    return leave(rows_of(context_attention(query, key, value, context.across->group, options)), context);
  }
  const at::Tensor mixed =
      unfused ? attend_with_dropout(query, key, value, context) : attend(query, key, value, context);
  return leave(rows_of(mixed), context);
}

at::Tensor Attention::leave(const at::Tensor& rows, const Context& context) const {
  return context.leave(project_out(*output_, rows, context));
}

at::Tensor Attention::attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                             const Context& context) const {
  const bool square = query.size(2) == key.size(2);
  at::Tensor bias = context.attention_bias;
  bool causal = config_.causal && query.size(2) > 1;
  if (causal && (bias.defined() || !square)) {
    const at::Tensor triangle = causal_bias(query.size(2), key.size(2), query);
    bias = bias.defined() ? bias + triangle : triangle;
    causal = false;
  }
  return dense_attention(query, key, value, bias, causal);
}

at::Tensor Attention::attend_with_dropout(const at::Tensor& query, const at::Tensor& key,
                                          const at::Tensor& value, const Context& context) const {
  at::Tensor scores = at::matmul(query / std::sqrt(static_cast<double>(query.size(3))), key.transpose(2, 3));
  if (config_.causal) scores = scores + causal_bias(query.size(2), key.size(2), query);
  if (context.attention_bias.defined()) scores = scores + context.attention_bias;
  const at::Tensor rows = scores.softmax(3);
  const at::Tensor kept = ops::dropout(rows.view({-1, rows.size(3)}), probability_site(rows, context));
  return at::matmul(kept.view(rows.sizes()), value);
}

}  // namespace tessera
