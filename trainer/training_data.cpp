#include "trainer/training_data.h"

#include <fmt/format.h>

#include "datasets/paths.h"
#include "trainer/objectives/objectives.h"

namespace tessera {
namespace {

bool same_tokens(const Tokenizer& a, const Tokenizer& b) {
  bool same = a.vocab_size() == b.vocab_size();
  for (int32_t id = 0; same && id < a.vocab_size(); ++id) same = a.token_of(id) == b.token_of(id);
  return same;
}

}  // namespace

TrainingData open_training_data(const Recipe& recipe, const Objective& objective) {
  const int64_t batch = recipe.train.global_batch;
  if (!kind_of(recipe.objective).reads_records) {
    return open_training_data(recipe.data, objective.example_kind(), recipe.run.seed, batch);
  }
  const auto open = [&](const std::string& path, uint64_t) { return objective.open(path); };
  return open_training_data(recipe.data, open, recipe.run.seed, batch);
}

DatasetPtr open_validation_data(const Recipe& recipe, const Objective& objective, const std::string& path) {
  DataSection data = recipe.data;
  if (!path.empty()) data.validation = path;
  if (!data.validation) return nullptr;
  if (kind_of(recipe.objective).reads_records) return objective.open(*data.validation);
  return open_validation_data(data, objective.example_kind(), recipe.run.seed);
}

DatasetFacts describe_training_data(const Recipe& recipe) {
  const std::string& path = recipe.data.train.sources.front().path;
  if (!kind_of(recipe.objective).reads_records) return describe_dataset({path});
  require_exists(path);
  DatasetFacts facts;
  facts.kind = "records of a task";
  return facts;
}

TokenizerPtr open_tokenizer(const Recipe& recipe, const StartModel* start) {
  if (recipe.data.tokenizer) return Tokenizer::load(*recipe.data.tokenizer);
  TokenizerPtr learned = start ? start->tokenizer() : nullptr;
  const std::string& path = recipe.data.train.sources.front().path;
  const DatasetFacts facts = describe_training_data(recipe);
  if (facts.tokenizer_json.empty() && learned) return learned;
  if (facts.tokenizer_json.empty()) {
    throw recipe.error("data.tokenizer", fmt::format("'{}' ({}) holds no tokenizer; valid: the path of its "
                                                     "tokenizer.json",
                                                     path, facts.kind));
  }
  TokenizerPtr own = Tokenizer::parse(facts.tokenizer_json, path);
  if (learned && !same_tokens(*own, *learned)) {
    throw recipe.error("data.train",
                       fmt::format("'{}' was made with another tokenizer ({} tokens) than the model in {} "
                                   "({} tokens); valid: data prepared with that of the model",
                                   path, own->vocab_size(), start->folder(), learned->vocab_size()));
  }
  return own;
}

}  // namespace tessera
