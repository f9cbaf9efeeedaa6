#include "trainer/catalog.h"

#include <fmt/format.h>

#include <algorithm>

#include "recipes/error.h"
#include "recipes/problems.h"
#include "recipes/recipe.h"
#include "trainer/adapt/adapt.h"
#include "trainer/models/models.h"
#include "trainer/objectives/objectives.h"
#include "trainer/optimizers/optimizers.h"
#include "trainer/schedules/schedules.h"
#include "trainer/start_model.h"

namespace tessera {
namespace {

/// A decoder predicts the next word, an encoder hidden ones; tasks are for both.
void check_objective_fits(const Recipe& recipe, Problems& problems) {
  const std::string& family = recipe.model.name();
  const auto fits = [&](const Choice& objective) {
    const auto families = kind_of(objective).families;
    return std::find(families.begin(), families.end(), family) != families.end();
  };
  if (fits(recipe.objective)) return;
  std::vector<std::string> valid;
  for (const auto& entry : objective_choices().entries) {
    if (fits(Choice(entry))) valid.push_back(entry.name);
  }
  problems.add("objective.name",
               recipe.objective.name() + " does not fit model.family " + family + "; valid: " + join(valid));
}

/// These read whole samples, and so many rows that no other rank can foresee.
void check_objective_divides(const Recipe& recipe, Problems& problems) {
  const std::string& name = recipe.objective.name();
  const bool choices = name == "multiple_choice";
  const auto refuse = [&](const char* axis, int64_t size) {
    problems.add(std::string("parallel.") + axis,
                 fmt::format("{} is not possible with objective {}; valid: 1", size, name));
  };
  if (recipe.parallel.context > 1 && (choices || name == "question_answering")) {
    refuse("context", recipe.parallel.context);
  }
  if (recipe.parallel.pipeline > 1 && choices) refuse("pipeline", recipe.parallel.pipeline);
}

void check_adapt(const Recipe& recipe, Problems& problems) {
  if (keeps_base(recipe) && !recipe.model.text("from")) {
    problems.add("adapt.method", recipe.adapt.name() + " needs a model to adapt; valid: with model.from");
  }
}

}  // namespace

const Catalog& catalog() {
  static const Catalog all{model_choices(),
                           objective_choices(),
                           optimizer_choices(),
                           schedule_choices(),
                           adapt_choices(),
                           {check_objective_fits, check_objective_divides, check_adapt},
                           [](const std::string& folder) { return StartModel::open(folder)->section(); }};
  return all;
}

}  // namespace tessera
