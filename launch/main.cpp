#include <c10/util/Exception.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "launch/commands.h"
#include "parallel/launch_info.h"
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
    if (app.get_subcommands().empty() && argc > 1 && argv[1][0] != '-') {
      std::vector<std::string> names;
      for (const auto& command : tessera::commands()) names.emplace_back(command.name);
      throw tessera::Error("unknown verb '" + std::string(argv[1]) + "'" +
                           tessera::valid_names(argv[1], names));
    }
    throw tessera::Error(std::string(error.what()) + " (tessera --help explains)");
  }
  return chosen();
}

/// Errors before MPI has started are met by every rank: rank 0 tells, and its exit ends the job. The others
/// wait for that, and speak only if they are the ones in trouble (a file missing on their host).
int fail(const char* message, int code) {
  std::string who;
  try {
    const tessera::LaunchInfo info = tessera::launch_info();
    if (info.rank != 0) {
      std::this_thread::sleep_for(std::chrono::seconds(3));
      who = "rank " + std::to_string(info.rank) + ": ";
    }
  } catch (const tessera::Error&) {  // it is the message
  }
  std::fprintf(stderr, "tessera: %s%s\n", who.c_str(), message);
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const tessera::Error& error) {
    return fail(error.what(), 2);
  } catch (const c10::Error& error) {
    return fail(error.what_without_backtrace(), 1);
  } catch (const std::exception& error) {
    return fail(error.what(), 1);
  }
}
