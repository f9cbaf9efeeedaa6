#include "trainer/blocks/transformer_block.h"

#include <torch/torch.h>

namespace tessera {

FeedForward::FeedForward(int64_t hidden_size, int64_t feed_forward_size, Activation kind) : kind_(kind) {
  expand_ = register_module("expand", std::make_shared<Linear>(hidden_size, feed_forward_size));
  contract_ = register_module("contract", std::make_shared<Linear>(feed_forward_size, hidden_size));
}

at::Tensor FeedForward::forward(const at::Tensor& x, const Context& context) const {
  const at::Tensor wide = project_into({expand_.get()}, x, context, Biases::left_out);
  return context.leave(project_out(*contract_, ops::activation(wide, expand_->bias, kind_), context));
}

TransformerBlock::TransformerBlock(const std::string& name, const TransformerBlockConfig& config)
    : norm_first_(config.norm_first),
      attention_dropout_(name + ".attention", config.dropout),
      feed_forward_dropout_(name + ".feed_forward", config.dropout) {
  const int64_t hidden = config.attention.hidden_size;
  attention_ =
      register_module("attention", std::make_shared<Attention>(name + ".attention", config.attention));
  attention_norm_ = register_module("attention_norm", std::make_shared<Norm>(hidden, config.epsilon));
  feed_forward_ = register_module(
      "feed_forward", std::make_shared<FeedForward>(hidden, config.feed_forward_size, config.activation));
  feed_forward_norm_ = register_module("feed_forward_norm", std::make_shared<Norm>(hidden, config.epsilon));
}

at::Tensor TransformerBlock::forward(const at::Tensor& x, const Context& context) const {
  if (!recompute_ || context.cache) return compute(x, context);
  return ops::recomputed([this, context](const at::Tensor& again) { return compute(again, context); }, x,
                         parameters());
}

at::Tensor TransformerBlock::compute(const at::Tensor& x, const Context& context) const {
  // attended: the residual sum after attention, which goes on; read: what feed-forward reads of it.
  ResidualNormInput first;
  first = (norm_first_ ? feed_forward_norm_ : attention_norm_)
              ->input(attention_->forward(norm_first_ ? attention_norm_->forward(x) : x, context));
  first.bias = attention_->output_bias();
  first.residual = x;
  first.dropout = attention_dropout_.at(context);
  const auto [attended, read] = ops::residual_norm(first);

  ResidualNormInput second;
  if (!norm_first_) second = feed_forward_norm_->input({});
  second.x = feed_forward_->forward(read, context);
  second.bias = feed_forward_->output_bias();
  second.residual = norm_first_ ? attended : read;
  second.dropout = feed_forward_dropout_.at(context);
  const auto [sum, normed] = ops::residual_norm(second);
  return norm_first_ ? sum : normed;
}

}  // namespace tessera
