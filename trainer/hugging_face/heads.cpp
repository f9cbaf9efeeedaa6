#include "trainer/hugging_face/heads.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "datasets/strict_json.h"
#include "recipes/error.h"
#include "trainer/objectives/objectives.h"

namespace tessera {
namespace {

using nlohmann::ordered_json;

struct HeadName {
  const char* theirs;
  const char* ours;
  std::vector<std::string> families;  // that transformers has it for
};
const std::vector<HeadName>& head_names() {
  static const std::vector<HeadName> names{
      {"ForSequenceClassification", "sequence_classification", {"Bert", "GPT2", "OpenAIGPT"}},
      {"ForTokenClassification", "token_classification", {"Bert", "GPT2"}},
      {"ForQuestionAnswering", "question_answering", {"Bert", "GPT2"}},
      {"ForMultipleChoice", "multiple_choice", {"Bert"}}};
  return names;
}

struct ProblemName {
  const char* theirs;
  Problem ours;
};
constexpr std::array<ProblemName, 3> problem_names{{{"single_label_classification", Problem::single_label},
                                                    {"multi_label_classification", Problem::multi_label},
                                                    {"regression", Problem::regression}}};

/// The names of id2label in the order of their numbers; without it as many as num_labels says, two by
/// default.
std::vector<std::string> read_labels(const ordered_json& config, const std::string& where) {
  const auto map = config.find("id2label");
  const bool named = map != config.end() && !map->is_null();
  if (named && !map->is_object()) throw Error(where + ": id2label: no object of numbers and names");
  constexpr int64_t most = 1 << 20;
  int64_t count = named ? static_cast<int64_t>(map->size()) : 2;
  if (!named && config.contains("num_labels")) {
    const auto& number = config["num_labels"];
    if (!number.is_number_integer() || number < 1 || number > most) {
      throw Error(
          fmt::format("{}: num_labels: {} is no whole number from 1 to {}", where, shown(number), most));
    }
    count = number.get<int64_t>();
  }
  std::vector<std::string> labels;
  std::set<std::string> seen;
  for (int64_t i = 0; i < count; ++i) {
    if (!named) {
      labels.push_back(fmt::format("LABEL_{}", i));
      continue;
    }
    const auto name = map->find(std::to_string(i));
    if (name == map->end() || !name->is_string()) {
      throw Error(fmt::format("{}: id2label: no name for {}, one of {} labels", where, i, count));
    }
    labels.push_back(name->get<std::string>());
    if (!seen.insert(labels.back()).second) {
      throw Error(fmt::format("{}: id2label: '{}' stands twice", where, labels.back()));
    }
  }
  return labels;
}

Problem read_problem(const ordered_json& config, size_t num_labels, const std::string& where) {
  const auto value = config.find("problem_type");
  if (value == config.end() || value->is_null()) {
    return num_labels == 1 ? Problem::regression : Problem::single_label;
  }
  std::vector<std::string> names;
  for (const auto& name : problem_names) {
    if (*value == name.theirs) return name.ours;
    names.emplace_back(name.theirs);
  }
  throw Error(fmt::format("{}: problem_type: {} is unknown{}", where, shown(*value),
                          valid_names(shown(*value), names)));
}

void write_labels(ordered_json& config, const std::vector<std::string>& labels) {
  config["id2label"] = config["label2id"] = ordered_json::object();
  for (size_t i = 0; i < labels.size(); ++i) {
    config["id2label"][std::to_string(i)] = labels[i];
    config["label2id"][labels[i]] = i;
  }
}

}  // namespace

Choice head_objective(const std::string& architecture, const ordered_json& config, const std::string& where) {
  for (const auto& head : head_names()) {
    if (!architecture.ends_with(head.theirs)) continue;
    Choice objective(*objective_choices().find(head.ours));
    if (auto* options = objective.get_if<SequenceClassificationOptions>()) {
      options->labels = read_labels(config, where);
      options->problem = read_problem(config, options->labels.size(), where);
    }
    if (auto* options = objective.get_if<TokenClassificationOptions>()) {
      options->labels = read_labels(config, where);
    }
    return objective;
  }
  return {};
}

bool has_task_head(const Choice& objective) {
  return objective.chosen() && kind_of(objective).heads.task != TaskHead::none;
}

void write_head(ordered_json& config, const Choice& objective, const std::string& family) {
  for (const auto& head : head_names()) {
    if (objective.name() != head.ours) continue;
    if (std::find(head.families.begin(), head.families.end(), family) == head.families.end()) {
      throw Error(fmt::format("objective.name: {} cannot be exported: Hugging Face has it for {}, not for {}",
                              objective.name(), join(head.families), family));
    }
    config["architectures"] = ordered_json::array({family + head.theirs});
  }
  if (const auto* options = objective.get_if<SequenceClassificationOptions>()) {
    write_labels(config, options->labels);
    for (const auto& name : problem_names) {
      if (name.ours == options->problem) config["problem_type"] = name.theirs;
    }
  }
  if (const auto* options = objective.get_if<TokenClassificationOptions>())
    write_labels(config, options->labels);
}

}  // namespace tessera
