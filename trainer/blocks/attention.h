#pragma once
#include <memory>
#include <string>

#include "trainer/blocks/layers.h"

namespace tessera {

struct AttentionConfig {
  int64_t hidden_size = 0;
  int64_t num_heads = 0;
  double dropout = 0;  ///< of the probabilities; above 0 leaves the fused kernel, which keeps none of them
  bool causal = false;
  int64_t layer = 0;  ///< which entry of a KeyValueCache is this one's
};

/// Multi-head self-attention (Vaswani et al., 2017), without the bias of the output projection: the residual
/// norm that follows adds it.
class Attention : public torch::nn::Module {
 public:
  Attention(const std::string& name, const AttentionConfig& config);
  /// x [batch * sequence, hidden] -> the same shape.
  at::Tensor forward(const at::Tensor& x, const Context& context) const;
  const at::Tensor& output_bias() const { return output_->bias; }
  /// Gives query, key and value one low-rank part, whose `a` they share.
  void add_lora(const LoraConfig& config);

 private:
  at::Tensor attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                    const Context& context) const;
  at::Tensor attend_with_dropout(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                 const Context& context) const;
  at::Tensor leave(const at::Tensor& rows, const Context& context) const;
  DropoutSite probability_site(const at::Tensor& probabilities, const Context& context) const;

  AttentionConfig config_;
  Dropout dropout_;
  std::string name_;
  std::shared_ptr<Linear> query_, key_, value_, output_;
};

}  // namespace tessera
