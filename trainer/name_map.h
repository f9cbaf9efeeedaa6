#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>

#include "trainer/model.h"

namespace tessera {

/// Finds one of our tensors (a parameter, or its gradient, or an average) by its name.
using TensorByName = std::function<at::Tensor(const std::string& name)>;

/// The tensor of the Hugging Face layout, made of ours.
at::Tensor to_hugging_face(const HuggingFaceTensor& entry, const TensorByName& ours);

/// Copies a tensor of the Hugging Face layout into ours, converting its type.
/// Errors: Error naming the key where the shapes differ.
void from_hugging_face(const HuggingFaceTensor& entry, const at::Tensor& theirs, const TensorByName& ours);

}  // namespace tessera
