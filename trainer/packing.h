#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tessera {

/// Which rows of a padded batch [batch * sequence] are tokens: attention can then leave the padding out where
/// a kernel takes sequences of different lengths one behind the other. Undefined tensors: nothing is padding,
/// or not only the ends of samples.
struct Packing {
  at::Tensor rows;      ///< [tokens] int64: the row of each token
  at::Tensor places;    ///< [batch * sequence] int64: the token of each row; any for padding
  at::Tensor padding;   ///< [batch * sequence, 1] bool
  at::Tensor starts;    ///< [batch + 1] int32: the first token of each sample, and the number of tokens
  int64_t longest = 0;  ///< tokens of the longest sample

  bool defined() const { return rows.defined(); }
};

/// attention_mask [batch, sequence] bool, on the CPU, so that no device is waited for; or undefined.
Packing pack(const at::Tensor& attention_mask);

}  // namespace tessera
