#pragma once
#include <string>
#include <vector>

#include "recipes/recipe.h"
#include "trainer/model.h"

namespace tessera {

/// The parts of a model over the stages of a pipeline, in order; part i is chunk i / stages of stage i %
/// stages.
struct PipelineParts {
  int stages = 1;
  std::vector<ModelRange> ranges;    ///< one: the whole model
  std::vector<bool> needs_gradient;  ///< of each part: some of its parameters are trained
  bool token_head = true;            ///< the end predicts tokens, with their embeddings

  int chunks() const { return static_cast<int>(ranges.size()) / stages; }
  const ModelRange& of(int stage, int chunk) const {
    return ranges[static_cast<size_t>(chunk) * static_cast<size_t>(stages) + static_cast<size_t>(stage)];
  }
  /// The chunk of `stage` that computes with a parameter; -1: none does.
  int chunk_with(const std::string& parameter, int stage) const;
  /// Whether a parameter is used at both ends, by different stages.
  bool tied(const std::string& parameter) const;
  bool uses(const ModelRange& range, const std::string& parameter) const;
};

/// Cut where first_blocks_of() says. adapt() has been called.
PipelineParts cut_model(const Model& model, const Recipe& recipe);

}  // namespace tessera
