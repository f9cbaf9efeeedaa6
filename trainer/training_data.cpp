#include "trainer/training_data.h"

#include "datasets/paths.h"
#include "trainer/objectives/objectives.h"

namespace tessera {

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

}  // namespace tessera
