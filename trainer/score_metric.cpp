#include "trainer/score_metric.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "recipes/error.h"

namespace tessera {

std::vector<std::string> report_names(const Objective& objective) {
  std::vector<std::string> names{"loss"};
  const auto& terms = objective.terms();
  for (const auto& term : terms) {
    names.push_back(term + "_loss");
    names.push_back(term + "_accuracy");
  }
  if (terms.front().ends_with("lm")) names.emplace_back("perplexity");
  const auto more = objective.metric_names();
  names.insert(names.end(), more.begin(), more.end());
  return names;
}

ScoreMetric::ScoreMetric(const Recipe& recipe, const Objective& objective) : name_(recipe.evaluate.metric) {
  const auto names = report_names(objective);
  if (std::find(names.begin(), names.end(), name_) != names.end()) return;
  throw recipe.error("evaluate.metric", "'" + name_ + "' is no metric of " + recipe.objective.name() +
                                            valid_names(name_, names));
}

double ScoreMetric::score(const LossReport& report) const {
  if (name_ == "loss") return report.loss;
  const bool lower = name_.ends_with("_loss") || name_.ends_with("_error") || name_ == "perplexity";
  for (const auto& [name, value] : report.values) {
    if (name == name_ && !std::isnan(value)) return lower ? value : -value;
  }
  return std::numeric_limits<double>::infinity();
}

}  // namespace tessera
