#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "trainer/model_shape.h"

namespace tessera {

struct ModelPart {
  std::string name;        ///< "embeddings", "layers", …: the first component of the parameters' names
  int64_t parameters = 0;  ///< of all of its copies
  int64_t times = 1;       ///< how many alike ("layers.0", "layers.1", …)
};

/// A parameter as far as dividing it goes.
struct ParameterFacts {
  int64_t rows = 1, width = 1;  ///< dim 0, and all other dims together
  int split = -1;               ///< the dim that the tensor axis divides; -1: it stays whole
};

/// Which parameters learn, as shares of elements.
struct TrainedShares {
  double tokens = 1, embeddings = 1, head = 1;  ///< of what ModelFacts has under these names
  std::vector<double> blocks;                   ///< of every block
  int64_t first_block = 0;   ///< gradients go back to here; blocks below keep nothing for a backward
  bool keeps_middle = true;  ///< the gradient of a block's last layer needs what it read
  bool below_blocks() const { return tokens + embeddings > 0; }
};

/// What memory and messages of a training step depend on.
struct ModelFacts : ModelShape {
  std::vector<ModelPart> parts;  ///< in the model's order
  int64_t total = 0;             ///< parameters; tied ones count once
  int64_t trained_total = 0;     ///< those that are not frozen
  int64_t optimizer_state = 0;   ///< elements, of what is trained
  TrainedShares trained;

  std::vector<ParameterFacts> embeddings;  ///< but for the table of tokens
  ParameterFacts tokens;                   ///< the table of tokens: read by the embedding and by the head
  std::vector<ParameterFacts> block;       ///< of one block; all are alike
  std::vector<ParameterFacts> head;        ///< what follows the blocks

  bool norm_embeddings = false;  ///< embeddings end in a norm
  bool final_norm = false;       ///< after the last block
  bool pair_head = false;        ///< a sentence-pair loss beside
  bool keeps_attention = false;  ///< dropout of probabilities: they are kept for backward
  int64_t num_terms = 1;         ///< of the loss
};

/// Looks at the model as `adapt` makes it, of stages the one that trains most, without using memory: its
/// tensors are never touched. Errors: a parameter group, or a pattern of `adapt`, that matches nothing; those
/// of open_start(), StartModel::fit() and adapt_or_follow(). `vocab_size` 0: not known yet; then the recipe's
/// own, or that of the family's published models.
ModelFacts look_at_model(const Recipe& recipe, int64_t vocab_size);

std::string with_commas(int64_t number);   ///< "1,234,567"
std::string bytes_text(double bytes);      ///< "1.23 GB", in powers of 1000
std::string seconds_text(double seconds);  ///< "12.3 ms"

}  // namespace tessera
