// Reads files that may be damaged, for tests/launch/test_hostile_files.py.
// usage: tool_hostile_files < CASES. A case is a line of two words: a kind (model, adapter, tokenizer,
// records) and a path (of an adapter: adapter and base). A line of JSON for each: {"ok": true}, or {"ok":
// false, "message": why it is refused}.
#include <fmt/format.h>

#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "datasets/tokenizer.h"
#include "recipes/error.h"
#include "trainer/catalog.h"
#include "trainer/hugging_face/folder.h"
#include "trainer/hugging_face/peft.h"
#include "trainer/models/models.h"
#include "trainer/objectives/objectives.h"

namespace {

using namespace tessera;

ModelPtr read_model(const std::string& path) {
  const HuggingFaceFolder folder = HuggingFaceFolder::open(path);
  const bool pairs = folder.has("cls.seq_relationship.weight");
  const ModelPtr model = make_model(folder.model().model, {0, {.next_sentence = pairs}});
  model->allocate();
  folder.load(*model);
  return model;
}

void read_adapter(const std::string& path, const std::string& base) {
  const PeftAdapter adapter = PeftAdapter::open(path);
  merge_adapter(*read_model(base), adapter);
}

void read_records(const std::string& path, const std::string& tokenizer) {
  const std::string text = fmt::format(
      "run: {{folder: none}}\nmodel: {{family: bert, max_positions: 64}}\nobjective: {{name: "
      "sequence_classification}}\n"
      "data: {{train: '{}', tokenizer: '{}', sequence_length: 32}}\noptimizer: {{name: adamw, learning_rate: "
      "1e-3}}\n"
      "schedule: {{name: linear}}\ntrain: {{steps: 1, global_batch: 1, micro_batch: 1}}\n",
      path, tokenizer);
  const Recipe recipe = read_recipe_text(text, "recipe", {}, catalog());
  const ObjectivePtr objective = make_objective(
      recipe.objective, objective_setting(recipe, Tokenizer::load(tokenizer), /*with_data=*/true));
  const DatasetPtr data = objective->open(path);
  for (int64_t i = 0; i < data->size(); ++i) data->get(i);
}

void read(const std::string& kind, const std::string& path, const std::string& other) {
  if (kind == "model") read_model(path);
  if (kind == "adapter") read_adapter(path, other);
  if (kind == "tokenizer") Tokenizer::load(path)->encode("Some text, with [MASK] and — more.");
  if (kind == "records") read_records(path, other);
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string kind, path, other;
    words >> kind >> path >> other;
    nlohmann::json result{{"ok", true}};
    try {
      read(kind, path, other);
    } catch (const Error& error) {  // anything else ends the program, and the test
      result = {{"ok", false}, {"message", error.what()}};
    }
    std::cout << result.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
  }
  std::ifstream status("/proc/self/status");
  while (std::getline(status, line)) {
    if (line.starts_with("VmHWM:")) std::cout << std::stol(line.substr(6)) / 1024 << "\n";
  }
}
