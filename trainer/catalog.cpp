#include "trainer/catalog.h"

#include "recipes/problems.h"
#include "recipes/recipe.h"
#include "trainer/adapt/adapt.h"
#include "trainer/models/models.h"
#include "trainer/objectives/objectives.h"
#include "trainer/optimizers/optimizers.h"
#include "trainer/schedules/schedules.h"

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

}  // namespace

const Catalog& catalog() {
  static const Catalog all{model_choices(),    objective_choices(), optimizer_choices(),
                           schedule_choices(), adapt_choices(),     {check_objective_fits}};
  return all;
}

}  // namespace tessera
