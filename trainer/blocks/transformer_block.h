#pragma once
#include <memory>
#include <string>

#include "trainer/blocks/attention.h"

namespace tessera {

struct TransformerBlockConfig {
  AttentionConfig attention;
  int64_t feed_forward_size = 0;
  double dropout = 0;
  double epsilon = 1e-5;
  Activation activation = Activation::gelu_erf;
  bool norm_first = false;  ///< GPT-2; otherwise norms follow the residual sums, as in BERT and GPT-1
};

/// The two dense layers between which a block is wide, without the bias of the second (the residual sum adds
/// it).
class FeedForward : public torch::nn::Module {
 public:
  FeedForward(int64_t hidden_size, int64_t feed_forward_size, Activation kind);
  at::Tensor forward(const at::Tensor& x, const Context& context) const;
  const at::Tensor& output_bias() const { return contract_->bias; }

 private:
  Activation kind_;
  std::shared_ptr<Linear> expand_, contract_;
};

/// Attention and feed-forward with their residual sums, norms and dropouts. `name` is the full name in the
/// model.
class TransformerBlock : public torch::nn::Module {
 public:
  TransformerBlock(const std::string& name, const TransformerBlockConfig& config);
  /// x [batch * sequence, hidden] -> the same shape.
  at::Tensor forward(const at::Tensor& x, const Context& context) const;
  /// Keep only the input for backward, and compute the rest again there.
  void set_recompute(bool recompute) { recompute_ = recompute; }

 private:
  at::Tensor compute(const at::Tensor& x, const Context& context) const;

  bool norm_first_;
  bool recompute_ = false;
  std::shared_ptr<Attention> attention_;
  std::shared_ptr<Norm> attention_norm_;
  std::shared_ptr<FeedForward> feed_forward_;
  std::shared_ptr<Norm> feed_forward_norm_;
  Dropout attention_dropout_, feed_forward_dropout_;
};

}  // namespace tessera
