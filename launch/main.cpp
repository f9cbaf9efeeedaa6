#include <c10/util/Exception.h>

#include <cstdio>
#include <cstdlib>

#include "launch/commands.h"
#include "recipes/error.h"

namespace {

/// Declares every verb on the program and runs the one that was asked for.
int run(int argc, char** argv) {
  CLI::App app("Tessera: distributed training of transformers", "tessera");
  app.require_subcommand(1);
  app.set_version_flag("--version", "tessera " TESSERA_VERSION);
  std::function<int()> chosen;
  for (const auto& command : tessera::commands()) {
    CLI::App* verb = app.add_subcommand(command.name, command.summary);
    verb->footer(std::string("Example:\n  ") + command.example);
    auto action = command.declare(*verb);
    verb->callback([&chosen, action] { chosen = action; });
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForAllHelp& help) {
    return app.exit(help);
  } catch (const CLI::CallForVersion& version) {
    return app.exit(version);
  } catch (const CLI::ParseError& error) {
    std::vector<std::string> names;
    for (const auto& command : tessera::commands()) names.emplace_back(command.name);
    std::string hint;
    if (argc > 1 && app.get_subcommands().empty()) hint = tessera::valid_names(argv[1], names);
    throw tessera::Error(std::string(error.what()) + hint + " (tessera --help explains)");
  }
  return chosen();
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const tessera::Error& error) {
    std::fprintf(stderr, "tessera: %s\n", error.what());
    return 2;
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "tessera: %s\n", error.what_without_backtrace());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tessera: %s\n", error.what());
  }
  return 1;
}
