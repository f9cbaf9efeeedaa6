#include "trainer/pipeline_parts.h"

#include "trainer/model_shape.h"
#include "trainer/placement.h"

namespace tessera {
namespace {

bool embeds(const std::string& parameter) { return parameter.starts_with("embeddings."); }
bool ends(const std::string& parameter) {
  return parameter == "embeddings.word.weight" || !(embeds(parameter) || unit_of(parameter) > 0);
}

}  // namespace

int PipelineParts::chunk_with(const std::string& parameter, int stage) const {
  for (int chunk = 0; chunk < chunks(); ++chunk) {
    const ModelRange& range = of(stage, chunk);
    if ((range.embeds && embeds(parameter)) || (range.finishes && ends(parameter))) return chunk;
    const size_t unit = unit_of(parameter);
    if (unit > range.first && unit <= range.end) return chunk;
  }
  return -1;
}

bool PipelineParts::tied(const std::string& parameter) const {
  return stages > 1 && embeds(parameter) && ends(parameter);
}

PipelineParts cut_model(const Model& model, const Recipe& recipe) {
  const size_t num_blocks = model.blocks().size();
  PipelineParts parts{static_cast<int>(recipe.parallel.pipeline), {}};
  const std::vector<int> first_blocks = first_blocks_of(recipe, shape_of(recipe, model.vocab_size()));
  for (size_t i = 0; i < first_blocks.size(); ++i) {
    const bool last = i + 1 == first_blocks.size();
    parts.ranges.push_back({static_cast<size_t>(first_blocks[i]),
                            last ? num_blocks : static_cast<size_t>(first_blocks[i + 1]), i == 0, last});
  }
  return parts;
}

}  // namespace tessera
