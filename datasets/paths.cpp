#include "datasets/paths.h"

#include <fmt/format.h>

#include <filesystem>

#include "recipes/error.h"

namespace tessera {

namespace fs = std::filesystem;

void require_exists(const std::string& path) {
  std::error_code failure;
  if (fs::exists(path, failure)) return;
  if (failure && failure != std::errc::no_such_file_or_directory) {
    throw Error(fmt::format("{}: cannot be opened: {}", path, failure.message()));
  }
  // The first part of the path that does not exist is the one to mend.
  fs::path present, missing;
  for (const auto& part : fs::path(path)) {
    missing = present / part;
    if (!fs::exists(missing, failure)) break;
    present = missing;
  }
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(present.empty() ? "." : present, failure)) {
    names.push_back(entry.path().filename());
  }
  const std::string near = nearest(missing.filename().string(), names);
  const std::string hint = near.empty() ? "" : fmt::format("; did you mean '{}'?", (present / near).string());
  throw Error(fmt::format("{}: no such file or folder{}", path, hint));
}

}  // namespace tessera
