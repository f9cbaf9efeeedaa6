#pragma once
#include <string>
#include <vector>

#include "parallel/mesh.h"
#include "trainer/tensor_piece.h"

namespace tessera {

class Model;
struct PipelineParts;
struct SplitRule;

/// Which part of a parameter's global tensor a rank holds, and with whom.
struct Placement {
  std::vector<int64_t> global_shape = {}, offset = {};  ///< the rank's rectangle begins at `offset`
  bool split = false;           ///< over the tensor axis: no other rank of it holds the same
  bool counted = true;          ///< this rank adds it to the global norm: one of its holders does
  int holder = 0, holders = 1;  ///< as in TensorPiece
  bool tied = false;            ///< the pipeline's other end has the same, and adds to its gradient
  int chunk = 0;                ///< of the pipeline stage
  size_t unit = 0;              ///< what is needed at once: i + 1 for block i, 0 for all else

  /// Copies the rectangle of `local`'s size at `offset` out of the whole tensor.
  void copy_part(const at::Tensor& whole, const at::Tensor& local) const;
  /// `local` has this rectangle: a parameter, or a state of the optimizer's.
  TensorPiece piece(std::string name, const at::Tensor& local) const {
    return {std::move(name), global_shape, offset, local, holder, holders, (split ? 1 : 0) + (tied ? 2 : 0)};
  }
};

/// A parameter of a module, tied ones once, under their first name.
struct PlacedTensor {
  std::string name;
  at::Tensor tensor;
  Placement placement;
};

/// The dim along which the plan splits a parameter over the tensor axis; -1: it stays whole.
int64_t split_dim(const std::vector<SplitRule>& plan, const std::string& name, int64_t dims);
/// Placement::unit: "layers.3.attention…" belongs to block 3.
size_t unit_of(const std::string& name);

/// Gives every parameter of an unallocated model the shape of its part on this rank, as the model's plan and
/// the mesh's tensor axis say, and leaves out those of other stages of the pipeline; memory comes with
/// allocate().
std::vector<PlacedTensor> place_parameters(Model& model, const Mesh& mesh, const PipelineParts& parts);
std::vector<PlacedTensor> place_parameters(Model& model, const Mesh& mesh);  ///< without a pipeline

/// Memory for parameters on the CPU, values undefined.
void allocate(const std::vector<PlacedTensor>& tensors);

}  // namespace tessera
