// The samples that a recipe's objective makes of data.train, as JSON lines, for
// tests/trainer/test_task_rows_oracle.py. usage: tool_task_rows RECIPE
#include <fmt/format.h>

#include <iostream>
#include <nlohmann/json.hpp>

#include "recipes/error.h"
#include "trainer/catalog.h"
#include "trainer/objectives/objectives.h"

int main(int argc, char** argv) {
  using namespace tessera;
  try {
    Recipe recipe = read_recipe(argv[1], {}, catalog());
    const ObjectivePtr objective = make_objective(
        recipe.objective,
        objective_setting(recipe, Tokenizer::load(*recipe.data.tokenizer), /*with_data=*/true));
    const DatasetPtr data = objective->open(recipe.data.train.sources.front().path);
    objective->settle(recipe.objective);
    std::cout << nlohmann::json{{"note", data->note()}, {"objective", to_line(recipe.objective.write())}}
              << "\n";
    for (int64_t i = 0; i < data->size(); ++i) {
      const Example example = data->get(i);
      std::cout << nlohmann::json{{"tokens", example.tokens},
                                  {"segments", example.segments},
                                  {"labels", example.labels},
                                  {"targets", example.targets},
                                  {"choices", example.choices.size()}}
                << "\n";
    }
  } catch (const Error& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
  return 0;
}
