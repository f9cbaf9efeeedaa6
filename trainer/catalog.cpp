#include "trainer/catalog.h"

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

/// A decoder predicts the next word, an encoder hidden ones.
void check_objective_fits(const Recipe& recipe, Problems& problems) {
  const bool causal = recipe.objective.name() == "causal_lm";
  const bool decoder = recipe.model.name() == "gpt";
  if (causal == decoder) return;
  problems.add("objective.name", recipe.objective.name() + " does not fit model.family " +
                                     recipe.model.name() +
                                     "; valid: " + (decoder ? "causal_lm" : "mlm_nsp, mlm"));
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
                           {check_objective_fits, check_adapt},
                           [](const std::string& folder) { return StartModel::open(folder)->section(); }};
  return all;
}

}  // namespace tessera
