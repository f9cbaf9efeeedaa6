// Folders of checkpoints: finding, publishing, removing.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "recipes/error.h"
#include "trainer/checkpoint_format.h"

namespace fs = std::filesystem;

namespace tessera {
namespace {

bool is_step_name(const std::string& name) {
  return name.size() >= 13 && name.rfind("step-", 0) == 0 &&
         name.find_first_not_of("0123456789", 5) == std::string::npos;
}

}  // namespace

std::vector<std::string> list_checkpoints(const std::string& folder) {
  std::vector<std::pair<int64_t, std::string>> found;
  std::error_code error;
  for (auto entry = fs::directory_iterator(folder, error); entry != fs::directory_iterator();
       entry.increment(error)) {
    const std::string name = entry->path().filename();
    if (is_step_name(name)) found.emplace_back(std::stoll(name.substr(5)), entry->path());
  }
  std::sort(found.begin(), found.end());
  std::vector<std::string> paths;
  for (auto& [step, path] : found) paths.push_back(std::move(path));
  return paths;
}

NewestCheckpoint newest_checkpoint(const std::string& folder) {
  NewestCheckpoint newest;
  auto paths = list_checkpoints(folder);
  if (paths.empty()) paths = list_checkpoints(fs::path(folder) / "checkpoints");
  std::reverse(paths.begin(), paths.end());
  for (const auto& path : paths) {
    try {
      CheckpointReader::open(path);
      newest.path = path;
      break;
    } catch (const Error& error) {
      newest.skipped.push_back(path + ": " + error.what());
    }
  }
  return newest;
}

namespace checkpoint {
namespace {

std::string host() {
  char name[256] = {};
  gethostname(name, sizeof(name) - 1);
  return name;
}

bool is_hidden(const std::string& name) {
  return name.rfind(".step-", 0) == 0 &&
         (name.find(".tmp-") != std::string::npos || name.find(".old-") != std::string::npos);
}

/// A temporary folder is another living run's if its process lives here, or if it changed within the last
/// hour elsewhere.
bool in_use(const fs::path& path) {
  const std::string name = path.filename();
  const std::string nonce = name.substr(name.find('-', name.find('.', 1)) + 1);  // host@process@time
  const size_t first = nonce.find('@'), second = nonce.find('@', first + 1);
  if (first == std::string::npos || second == std::string::npos) return false;
  if (nonce.substr(0, first) == host()) {
    const int process = std::atoi(nonce.substr(first + 1, second - first - 1).c_str());
    return process != getpid() && kill(process, 0) == 0;
  }
  std::error_code error;
  const auto changed = fs::last_write_time(path, error);
  return !error && fs::file_time_type::clock::now() - changed < std::chrono::hours(1);
}

/// Hides the folder first, so that one whose removal is interrupted is never taken for a checkpoint.
void remove_checkpoint(const std::string& path, const std::string& nonce) {
  const fs::path hidden =
      fs::path(path).parent_path() / fmt::format(".{}.old-{}", fs::path(path).filename().string(), nonce);
  std::error_code error;
  fs::rename(path, hidden, error);
  if (!error) fs::remove_all(hidden, error);
}

std::optional<double> score_of(const std::string& path) {
  try {
    return CheckpointReader::open(path).meta().score;
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

std::string make_nonce() {
  return fmt::format("{}@{}@{}", host(), getpid(),
                     std::chrono::system_clock::now().time_since_epoch().count());
}

void remove_leftovers(const std::string& folder) {
  std::error_code error;
  std::vector<fs::path> leftovers;
  for (auto entry = fs::directory_iterator(folder, error); entry != fs::directory_iterator();
       entry.increment(error)) {
    if (is_hidden(entry->path().filename()) && !in_use(entry->path())) leftovers.push_back(entry->path());
  }
  for (const auto& path : leftovers) fs::remove_all(path, error);
}

void publish(const std::string& temporary, const std::string& final_path) {
  sync_folder(temporary);
  if (fs::exists(final_path)) {
    // Swapping leaves no instant without a checkpoint; file systems that cannot do it need two steps.
    if (renameat2(AT_FDCWD, temporary.c_str(), AT_FDCWD, final_path.c_str(), RENAME_EXCHANGE) != 0) {
      remove_checkpoint(final_path, make_nonce());
      if (std::rename(temporary.c_str(), final_path.c_str()) != 0)
        fail_with_reason(final_path, "cannot be renamed to");
    }
  } else if (std::rename(temporary.c_str(), final_path.c_str()) != 0) {
    fail_with_reason(final_path, "cannot be renamed to");
  }
  sync_folder(fs::path(final_path).parent_path());
  std::error_code error;
  fs::remove_all(temporary, error);  // what was there before
}

void apply_retention(const std::string& current, const CheckpointOptions& options) {
  const auto paths = list_checkpoints(options.folder);
  const size_t keep = size_t(std::max(1, options.keep));
  std::vector<std::string> candidates(paths.begin(), paths.end() - std::min(keep, paths.size()));
  if (candidates.empty()) return;
  std::string best;
  double best_score = INFINITY;
  for (const auto& path : paths) {
    const auto score = options.keep_best ? score_of(path) : std::nullopt;
    if (score && *score < best_score) best_score = *score, best = path;
  }
  const std::string nonce = make_nonce();
  for (const auto& path : candidates) {
    if (path != best && path != current) remove_checkpoint(path, nonce);
  }
}

}  // namespace checkpoint
}  // namespace tessera
