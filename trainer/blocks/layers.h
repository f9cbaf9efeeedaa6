#pragma once
#include <torch/nn/module.h>

#include <memory>
#include <string>

#include "trainer/blocks/context.h"
#include "trainer/blocks/functions.h"
#include "trainer/blocks/lora.h"

namespace tessera {

/// Layers that hold parameters, which have no memory until a model is placed (trainer/placement.h). All data
/// are [rows, hidden].

/// A tensor for a parameter of this shape: float32, on the CPU, without memory.
at::Tensor unallocated(at::IntArrayRef shape);

class Linear : public torch::nn::Module {
 public:
  Linear(int64_t inputs, int64_t outputs, bool with_bias = true);
  /// Of a layer that is whole.
  at::Tensor forward(const at::Tensor& x, const Context& context) const { return project(*this, x, context); }
  at::Tensor weight;           ///< [outputs, inputs]
  at::Tensor bias;             ///< [outputs]; undefined without
  std::shared_ptr<Lora> lora;  ///< null: none
};

class Norm : public torch::nn::Module {
 public:
  Norm(int64_t hidden_size, double epsilon);
  at::Tensor forward(const at::Tensor& x) const { return ops::residual_norm(input(x)).second; }
  /// x to be normed, where the caller adds bias, residual and dropout.
  ResidualNormInput input(const at::Tensor& x) const;
  at::Tensor weight, bias;  ///< [hidden]

 private:
  double epsilon_;
};

class Embedding : public torch::nn::Module {
 public:
  Embedding(int64_t rows, int64_t hidden_size);
  /// indices of any shape -> [number of indices, hidden]
  at::Tensor forward(const at::Tensor& indices) const;
  at::Tensor weight;           ///< [rows, hidden]
  std::shared_ptr<Lora> lora;  ///< null: none
};

/// A dropout site without parameters: its name (the module's full name) decides what it drops.
class Dropout {
 public:
  Dropout(const std::string& site, double probability);
  at::Tensor forward(const at::Tensor& x, const Context& context) const {
    return ops::dropout(x, at(context));
  }
  DropoutSite at(const Context& context) const { return context.dropout_site(site_, probability_); }
  double probability() const { return probability_; }

 private:
  uint64_t site_;
  double probability_;
};

}  // namespace tessera
