#pragma once
#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

namespace tessera {

/// A rectangle of a global tensor: covers [offset, offset + local.sizes()) of it.
struct TensorPiece {
  std::string name;  ///< "model/embeddings.word.weight"
  std::vector<int64_t> global_shape, offset;
  at::Tensor local;  ///< any device, any strides
  int holder = 0;    ///< of the `holders` ranks that hold this same rectangle, which one this is
  int holders = 1;
  int kind = 0;  ///< all pieces of one kind on a rank are held by the same ranks
};

/// A piece that is a whole tensor.
inline TensorPiece whole_piece(std::string name, const at::Tensor& tensor) {
  return {std::move(name), tensor.sizes().vec(), std::vector<int64_t>(static_cast<size_t>(tensor.dim()), 0),
          tensor};
}

}  // namespace tessera
