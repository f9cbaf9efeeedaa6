// Scores cases for tests/trainer/test_task_metrics.py. usage: tool_task_metrics FILE
// FILE: a JSON list of {"kind": …, "truths": …, "predictions": …}; prints the list of their scores, NaN as
// null and what is refused as {"error": …}.
#include "trainer/task_metrics.h"

#include <fstream>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>

#include "recipes/error.h"

namespace {

using nlohmann::json;
using namespace tessera;

json in_json(const Ratios& r) { return {r.precision, r.recall, r.f1, r.support}; }
json in_json(const SpanScores& s) { return {s.exact_match, s.f1, s.questions}; }
json in_json(const std::vector<Ratios>& all) {
  json list = json::array();
  for (const Ratios& ratios : all) list.push_back(in_json(ratios));
  return list;
}

std::vector<double> numbers(const json& list) {
  std::vector<double> values;
  for (const json& value : list)
    values.push_back(value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>());
  return values;
}

json score_case(const json& c) {
  using Integers = std::vector<int64_t>;
  using Strings = std::vector<std::string>;
  const json &kind = c.at("kind"), &truths = c.at("truths"), &predictions = c.at("predictions");
  if (kind == "classes") {
    const auto s = score_classes(truths.get<Integers>(), predictions.get<Integers>(), c.at("num_classes"));
    return {{"accuracy", s.accuracy},
            {"f1", {s.f1_macro, s.f1_weighted, s.f1_binary}},
            {"matthews", s.matthews},
            {"classes", in_json(s.classes)},
            {"confusion",
             confusion_matrix(truths.get<Integers>(), predictions.get<Integers>(), c.at("num_classes"))}};
  }
  if (kind == "label sets") {
    const auto s =
        score_label_sets(truths.get<std::vector<Integers>>(), predictions.get<std::vector<Integers>>());
    return {{"accuracy", s.accuracy},
            {"f1", {s.f1_micro, s.f1_macro, s.f1_samples}},
            {"labels", in_json(s.labels)}};
  }
  if (kind == "numbers") {
    const auto s = score_numbers(numbers(truths), numbers(predictions));
    return {s.pearson, s.spearman, s.mean_squared_error, s.mean_absolute_error};
  }
  if (kind == "entities") {
    const auto s =
        score_entities(truths.get<std::vector<Strings>>(), predictions.get<std::vector<Strings>>());
    json types = json::object(), entities = json::array();
    for (const auto& [type, ratios] : s.types) types[type] = in_json(ratios);
    for (const Entity& e : find_entities(truths)) entities.push_back({e.type, e.sentence, e.begin, e.end});
    return {{"all", in_json(s.all)}, {"types", types}, {"accuracy", s.accuracy}, {"entities", entities}};
  }
  const auto version = kind == "answers v1" ? SquadVersion::v1 : SquadVersion::v2;
  const auto s = score_answers(truths.get<std::vector<Strings>>(), predictions.get<Strings>(), version);
  json normalized = json::array();
  for (const auto& text : predictions) normalized.push_back(normalize_answer(text));
  return {{"all", in_json(s.all)},
          {"with_answer", in_json(s.with_answer)},
          {"without_answer", in_json(s.without_answer)},
          {"normalized", normalized}};
}

}  // namespace

int main(int, char** argv) {
  std::ifstream file(argv[1]);
  json scores = json::array();
  for (const json& c : json::parse(file)) {
    try {
      scores.push_back(score_case(c));
    } catch (const Error& error) {
      scores.push_back({{"error", error.what()}});
    }
  }
  std::cout << scores.dump() << '\n';
}
