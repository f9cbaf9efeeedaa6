#pragma once
#include <string>
#include <vector>

namespace tessera {

/// Where the recipes that came with this program lie: beside an installed one (share/tessera/recipes), in the
/// source tree of a built one, or in ./recipes. Errors: Error where there are none.
std::string shipped_recipes_folder();

/// "bert/pretrain-mini", …, sorted.
std::vector<std::string> shipped_recipe_names();

/// The file of a name, with or without ".yaml". Errors: Error with the valid names.
std::string find_shipped_recipe(const std::string& name);

/// The first line of comment: what the recipe is.
std::string recipe_summary(const std::string& path);

/// Files that a recipe includes, directly or not; each once.
std::vector<std::string> included_recipes(const std::string& path);

std::string read_whole(const std::string& path);

}  // namespace tessera
