#include "launch/shipped_recipes.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "recipes/error.h"
#include "recipes/section.h"

namespace tessera {

namespace fs = std::filesystem;

std::string shipped_recipes_folder() {
  std::error_code none;
  const fs::path program = fs::read_symlink("/proc/self/exe", none).parent_path();
  const fs::path installed = program / "../share/tessera/recipes", built = program / "../../recipes";
  for (const fs::path& folder : {installed, built, fs::path("recipes")}) {
    if (fs::is_directory(folder / "bert", none)) return fs::relative(folder, ".", none).string();
  }
  throw Error("no recipes were found beside the program (share/tessera/recipes) or in ./recipes");
}

std::vector<std::string> shipped_recipe_names() {
  const fs::path folder = shipped_recipes_folder();
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.path().extension() != ".yaml") continue;
    names.push_back(fs::relative(entry.path(), folder).replace_extension().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string find_shipped_recipe(const std::string& name) {
  const std::string plain = name.ends_with(".yaml") ? name.substr(0, name.size() - 5) : name;
  const auto names = shipped_recipe_names();
  if (std::find(names.begin(), names.end(), plain) == names.end()) {
    throw Error("there is no recipe '" + name + "'" + valid_names(plain, names));
  }
  return (fs::path(shipped_recipes_folder()) / (plain + ".yaml")).string();
}

std::string read_whole(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) throw Error(path + ": cannot be read");
  return text.str();
}

std::string recipe_summary(const std::string& path) {
  std::istringstream lines(read_whole(path));
  std::string line;
  std::getline(lines, line);
  const size_t begin = line.find_first_not_of("# ");
  return begin == std::string::npos || line.front() != '#' ? "" : line.substr(begin);
}

std::vector<std::string> included_recipes(const std::string& path) {
  std::vector<std::string> found, waiting{path};
  while (!waiting.empty()) {
    const std::string file = waiting.back();
    waiting.pop_back();
    ProblemList problems;
    const auto section = parse_yaml(read_whole(file), Place{file, 1, 1}, problems);
    problems.throw_if_any();
    const SectionEntry* include = section ? section->find("include") : nullptr;
    if (!include) continue;
    const bool many = include->value.kind == Section::Kind::list;
    for (const Section& name : many ? include->value.items : std::vector{include->value}) {
      const std::string other = (fs::path(file).parent_path() / name.text).lexically_normal().string();
      if (std::find(found.begin(), found.end(), other) != found.end()) continue;
      found.push_back(other);
      waiting.push_back(other);
    }
  }
  return found;
}

}  // namespace tessera
