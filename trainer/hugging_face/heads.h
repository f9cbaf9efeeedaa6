#pragma once
#include <nlohmann/json.hpp>
#include <string>

#include "recipes/registry.h"

namespace tessera {

/// The objective that the head of such an architecture was trained for ("BertForSequenceClassification"),
/// with the labels that the config.json names; not chosen for heads that predict tokens. Errors: Error that
/// begins with `where` and names the key.
Choice head_objective(const std::string& architecture, const nlohmann::ordered_json& config,
                      const std::string& where);

/// Whether the objective is a task with a head of its own.
bool has_task_head(const Choice& objective);

/// Adds to a config.json what tells of a task's head: labels, the kind of problem, and the architecture,
/// whose name begins with `family` ("Bert"). Errors: Error where transformers has no such model.
void write_head(nlohmann::ordered_json& config, const Choice& objective, const std::string& family);

}  // namespace tessera
