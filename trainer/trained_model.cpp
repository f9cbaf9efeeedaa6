#include "trainer/trained_model.h"

#include <fmt/format.h>

#include "recipes/error.h"
#include "trainer/catalog.h"
#include "trainer/models/models.h"
#include "trainer/objectives/objectives.h"
#include "trainer/parameters.h"

namespace tessera {

TrainedModel load_trained_model(const std::string& path, bool averaged) {
  const CheckpointReader reader = CheckpointReader::open(path);
  TrainedModel trained;
  trained.checkpoint = reader.folder();
  trained.meta = reader.meta();
  const std::string origin = reader.folder() + "/checkpoint.h5";
  trained.recipe = read_recipe_text(reader.meta().recipe, origin, {}, catalog());
  trained.tokenizer = Tokenizer::parse(reader.meta().tokenizer, origin);
  trained.objective =
      make_objective(trained.recipe.objective, objective_setting(trained.recipe, trained.tokenizer));
  trained.model =
      make_model(trained.recipe.model, {trained.tokenizer->vocab_size(), trained.objective->heads()});
  trained.model->allocate();
  const std::string group = averaged ? "ema/" : "model/";
  for (const auto& parameter : collect_parameters(*trained.model)) {
    if (averaged && !reader.has(group + parameter.name)) {
      throw Error(fmt::format("{}: this run kept no moving average (train.ema)", reader.folder()));
    }
    reader.read_into(group + parameter.name,
                     std::vector<int64_t>(static_cast<size_t>(parameter.master.dim()), 0),
                     parameter.master.detach());
  }
  trained.model->eval();
  return trained;
}

}  // namespace tessera
