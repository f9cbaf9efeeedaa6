#pragma once
#include <CLI/CLI.hpp>
#include <functional>
#include <vector>

namespace tessera {

/// One verb of the program. `declare` adds its options and positionals to `app` and returns what to run once
/// they are parsed; that returns the exit code (0 = well, 1 = failed, 2 = the user's mistake; mistakes are
/// thrown as Error).
struct Command {
  const char* name;
  const char* summary;
  const char* example;  ///< shown at the end of --help
  std::function<int()> (*declare)(CLI::App& app);
};

/// All verbs, in the order of --help: one file each, one line each in launch/commands.cpp.
const std::vector<Command>& commands();

}  // namespace tessera
