#include <fmt/format.h>

#include <filesystem>

#include "launch/commands.h"
#include "launch/shipped_recipes.h"
#include "recipes/recipe.h"
#include "trainer/catalog.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

int list() {
  const fs::path folder = shipped_recipes_folder();
  fmt::print("{}\n", folder.string());
  for (const auto& name : shipped_recipe_names()) {
    fmt::print("  {:<24} {}\n", name, recipe_summary((folder / (name + ".yaml")).string()));
  }
  return 0;
}

int show(const std::string& name, bool resolved) {
  const std::string path = find_shipped_recipe(name);
  fmt::print("{}", resolved ? dump(read_recipe(path, {}, catalog()), catalog()) : read_whole(path));
  return 0;
}

/// Copies the recipe and, beside it, what it includes; nothing is overwritten.
int copy(const std::string& name, const std::string& to) {
  const fs::path source = find_shipped_recipe(name);
  fs::path target = to.empty() ? fs::path(".") : fs::path(to);
  if (fs::is_directory(target) || to.ends_with('/')) target /= source.filename();
  std::vector<std::pair<fs::path, fs::path>> copies{{source, target}};
  for (const auto& file : included_recipes(source.string())) {
    copies.emplace_back(file, target.parent_path() / fs::path(file).filename());
  }
  for (const auto& [from, file] : copies) {
    if (fs::exists(file))
      throw Error(fmt::format("{} is there already; valid: another name or folder", file.string()));
  }
  std::error_code failure;
  if (target.has_parent_path()) fs::create_directories(target.parent_path(), failure);
  for (const auto& [from, file] : copies) {
    if (!fs::copy_file(from, file, failure)) {
      throw Error(fmt::format("{}: cannot be written: {}", file.string(), failure.message()));
    }
    fmt::print("{}\n", file.string());
  }
  return 0;
}

}  // namespace

std::function<int()> declare_recipes(CLI::App& app) {
  struct Options {
    std::string name, to;
    bool resolved = false;
    std::function<int()> action;
  };
  auto options = std::make_shared<Options>();
  app.require_subcommand(1);
  CLI::App* verb = app.add_subcommand("list", "Names and first lines of the recipes that ship with Tessera");
  verb->callback([options] { options->action = list; });

  verb = app.add_subcommand("show", "Print a recipe");
  verb->add_option("name", options->name, "Such as bert/pretrain-mini")->required();
  verb->add_flag("--resolved", options->resolved, "With what it includes and every default filled in");
  verb->callback(
      [options] { options->action = [options] { return show(options->name, options->resolved); }; });

  verb = app.add_subcommand("copy", "Copy a recipe, and what it includes, to change it");
  verb->add_option("name", options->name, "Such as bert/pretrain-mini")->required();
  verb->add_option("to", options->to, "File or folder (default: the working folder)");
  verb->callback([options] { options->action = [options] { return copy(options->name, options->to); }; });

  verb = app.add_subcommand("reference", "Print every section and key: the text of docs/recipes.md");
  verb->callback([options] {
    options->action = [] {
      fmt::print("{}", reference(catalog()));
      return 0;
    };
  });
  return [options] { return options->action(); };
}

}  // namespace tessera
