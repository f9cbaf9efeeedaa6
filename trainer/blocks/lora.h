#pragma once
#include <torch/nn/module.h>

#include <memory>
#include <string>
#include <vector>

#include "trainer/blocks/context.h"

namespace tessera {

struct LoraConfig {
  int64_t rank = 0;
  double scale = 1;  ///< of the product: alpha / rank, or alpha / sqrt(rank)
  double dropout = 0;
  bool dora = false;  ///< with a magnitude per output (Liu et al., 2024)
};

/// The low-rank part of a layer: scale * b a x (Hu et al., "LoRA", 2021). One that several layers share is
/// only an `a`, to which each of them has a `b` of its own.
class Lora : public torch::nn::Module {
 public:
  /// `name` is the full name of the layer: it decides what dropout drops.
  Lora(const std::string& name, const LoraConfig& config);
  void add_input(int64_t inputs);                     ///< makes `a`
  void add_output(int64_t outputs);                   ///< makes `b`, and `magnitude` if so configured
  void add_table(int64_t rows, int64_t hidden_size);  ///< both, for an embedding
  void share(const std::shared_ptr<const Lora>& input) { shared_ = input; }

  const Lora& input() const { return shared_ ? *shared_ : *this; }
  const LoraConfig& config() const { return config_; }
  DropoutSite site(const Context& context) const { return context.dropout_site(site_, config_.dropout); }
  DropoutSite site_inside(const Context& context, int64_t columns) const {
    return context.dropout_site_inside(site_, config_.dropout, columns);
  }

  at::Tensor a;          ///< [rank, inputs]; of an embedding [rows, rank]; undefined where shared
  at::Tensor b;          ///< [outputs, rank]; undefined in what is shared
  at::Tensor magnitude;  ///< [outputs]; undefined without DoRA

 private:
  LoraConfig config_;
  uint64_t site_;
  std::shared_ptr<const Lora> shared_;
};

/// Whether a parameter with this name belongs to one.
inline bool is_low_rank(const std::string& parameter) {
  return parameter.find(".lora.") != std::string::npos;
}

class Linear;

/// Whether a product adds the layers' biases, or leaves them to what follows.
enum class Biases { added, left_out };

/// Layers whose outputs are divided where ranks divide layers, in one product: own rows x [rows, in] -> all
/// rows [rows, sum of outputs].
at::Tensor project_into(const std::vector<const Linear*>& layers, const at::Tensor& x, const Context& context,
                        Biases biases);
/// A layer whose inputs are divided there: x [rows, own inputs] -> this rank's addend [rows, outputs].
at::Tensor project_out(const Linear& layer, const at::Tensor& x, const Context& context);
/// A layer that is whole, with its bias.
at::Tensor project(const Linear& layer, const at::Tensor& x, const Context& context);

/// ||W + scale b a|| of each row of a weight [outputs, inputs], which DoRA divides by: [outputs] float32.
at::Tensor row_norms(const at::Tensor& weight, const Lora& lora);

}  // namespace tessera
