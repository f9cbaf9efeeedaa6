#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "recipes/recipe.h"

namespace tessera {

struct ModelPart {
  std::string name;        ///< "embeddings", "layers", …: the first component of the parameters' names
  int64_t parameters = 0;  ///< of all of its copies
  int64_t times = 1;       ///< how many alike ("layers.0", "layers.1", …)
};

struct ModelParts {
  std::vector<ModelPart> parts;  ///< in the model's order
  int64_t total = 0;             ///< tied parameters count once
  int64_t optimizer_state = 0;   ///< elements
  int64_t vocab_size = 0;
};

/// Counts without using memory: the model's tensors are never touched. Errors: a parameter group that matches
/// nothing. `vocab_size` 0: not known yet; then the recipe's own, or that of the family's published models.
ModelParts count_parameters(const Recipe& recipe, int64_t vocab_size);

struct MemoryKind {
  std::string name, why;
  int64_t bytes = 0;
};

/// What a rank needs at the height of a step. Weights, gradients and optimizer state are exact; activations
/// are the tensors that backward needs, [micro batch x sequence] times 9 hidden + 2 feed-forward sizes a
/// block (Korthikanti et al., "Reducing activation recomputation", 2022, without attention maps and dropout
/// masks, which we do not keep).
std::vector<MemoryKind> memory_per_rank(const Recipe& recipe, const ModelParts& parts, int ranks);

std::string with_commas(int64_t number);  ///< "1,234,567"
std::string bytes_text(int64_t bytes);    ///< "1.23 GB", in powers of 1000

}  // namespace tessera
