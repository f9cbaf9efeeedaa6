#include "trainer/pipeline_parts.h"

#include <algorithm>

#include "trainer/model_shape.h"
#include "trainer/objectives/objectives.h"
#include "trainer/placement.h"

namespace tessera {
namespace {

bool embeds(const std::string& parameter) { return parameter.starts_with("embeddings."); }
/// Whether a head computes with it.
bool ends(const std::string& parameter, bool token_head) {
  if (parameter == "embeddings.word.weight") return token_head;
  return !embeds(parameter) && unit_of(parameter) == 0;
}

bool trains(const PipelineParts& parts, const ModelRange& range,
            const std::vector<NamedParameter>& parameters) {
  return std::any_of(parameters.begin(), parameters.end(), [&](const NamedParameter& parameter) {
    return parameter.tensor.requires_grad() && parts.uses(range, parameter.name);
  });
}

}  // namespace

bool PipelineParts::uses(const ModelRange& range, const std::string& parameter) const {
  if ((range.embeds && embeds(parameter)) || (range.finishes && ends(parameter, token_head))) return true;
  const size_t unit = unit_of(parameter);
  return unit > range.first && unit <= range.end;
}

int PipelineParts::chunk_with(const std::string& parameter, int stage) const {
  for (int chunk = 0; chunk < chunks(); ++chunk) {
    if (uses(of(stage, chunk), parameter)) return chunk;
  }
  return -1;
}

bool PipelineParts::tied(const std::string& parameter) const {
  return stages > 1 && embeds(parameter) && ends(parameter, token_head);
}

PipelineParts cut_model(const Model& model, const Recipe& recipe) {
  const size_t num_blocks = model.blocks().size();
  PipelineParts parts{static_cast<int>(recipe.parallel.pipeline), {}, {}};
  parts.token_head = kind_of(recipe.objective).heads.vocabulary;
  const std::vector<int> first_blocks = first_blocks_of(recipe, shape_of(recipe, model.vocab_size()));
  for (size_t i = 0; i < first_blocks.size(); ++i) {
    const bool last = i + 1 == first_blocks.size();
    parts.ranges.push_back({static_cast<size_t>(first_blocks[i]),
                            last ? num_blocks : static_cast<size_t>(first_blocks[i + 1]), i == 0, last});
  }
  const auto parameters = parameters_once(model);
  for (const ModelRange& range : parts.ranges)
    parts.needs_gradient.push_back(trains(parts, range, parameters));
  return parts;
}

}  // namespace tessera
