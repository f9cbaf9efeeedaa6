#include "launch/commands.h"
#include "recipes/error.h"

namespace tessera {

std::function<int()> declare_train(CLI::App& app) {
  struct Options {
    std::string recipe;
    std::vector<std::string> overrides;
  };
  auto options = std::make_shared<Options>();
  app.add_option("recipe", options->recipe, "The recipe's file")->required();
  app.add_option("overrides", options->overrides, "Changes to the recipe: key.sub=value");
  return [options]() -> int { throw Error(options->recipe + ": training is not wired yet"); };
}

}  // namespace tessera
