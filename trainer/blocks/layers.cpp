#include "trainer/blocks/layers.h"

#include <torch/torch.h>

#include "parallel/embedding_rows.h"
#include "recipes/random.h"

namespace tessera {

at::Tensor unallocated(at::IntArrayRef shape) {
  at::Tensor tensor = at::empty({0});
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
  return tensor;
}

Linear::Linear(int64_t inputs, int64_t outputs, bool with_bias)
    : weight(register_parameter("weight", unallocated({outputs, inputs}))) {
  if (with_bias) bias = register_parameter("bias", unallocated({outputs}));
}

Norm::Norm(int64_t hidden_size, double epsilon)
    : weight(register_parameter("weight", unallocated({hidden_size}))),
      bias(register_parameter("bias", unallocated({hidden_size}))),
      epsilon_(epsilon) {}

ResidualNormInput Norm::input(const at::Tensor& x) const {
  ResidualNormInput input;
  input.x = x;
  input.weight = weight;
  input.shift = bias;
  input.epsilon = epsilon_;
  return input;
}

Embedding::Embedding(int64_t rows, int64_t hidden_size)
    : weight(register_parameter("weight", unallocated({rows, hidden_size}))) {}

at::Tensor Embedding::forward(const at::Tensor& indices) const {
  return embedding_rows(weight, indices.reshape({-1}));
}

Dropout::Dropout(const std::string& site, double probability)
    : site_(hash_name(site)), probability_(probability) {}

}  // namespace tessera
