#pragma once
#include <string>
#include <vector>

#include "recipes/recipe.h"
#include "trainer/evaluate.h"
#include "trainer/objective.h"

namespace tessera {

/// The number of an evaluation that tells how good the weights are: evaluate.metric.
class ScoreMetric {
 public:
  /// Errors: Error with the recipe's place, and the valid names.
  ScoreMetric(const Recipe& recipe, const Objective& objective);

  const std::string& name() const { return name_; }
  /// Lower is better: losses and errors as they are, the others negated. Infinite where there is none.
  double score(const LossReport& report) const;

 private:
  std::string name_;
};

/// "loss", and the names of all other values that an evaluation reports.
std::vector<std::string> report_names(const Objective& objective);

}  // namespace tessera
