#include "datasets/output_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "datasets/token_file.h"
#include "recipes/error.h"

namespace tessera {

namespace fs = std::filesystem;

OutputFolder::OutputFolder(const std::string& path) : path_(path) {
  std::error_code failure;
  fs::create_directories(work(), failure);
  if (failure) throw Error(fmt::format("{}: cannot be made: {}", path, failure.message()));
  lock_ = ::open(work().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0 || ::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    if (lock_ >= 0) ::close(lock_);
    throw Error(reason == EWOULDBLOCK ? fmt::format("{}: another process is writing into this folder", path)
                                      : fmt::format("{}: cannot be used: {}", work(), std::strerror(reason)));
  }
  for (const auto& left_behind : fs::directory_iterator(work())) fs::remove_all(left_behind, failure);
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  fs::remove_all(work(), ignored);
  ::close(lock_);
}

std::string OutputFolder::publish(const std::string& name) {
  std::string target = path_ + "/" + name;
  std::error_code failure;
  fs::rename(work() + "/" + name, target, failure);
  if (failure) throw Error(fmt::format("{}: cannot be written: {}", target, failure.message()));
  sync_to_disk(path_);
  return target;
}

}  // namespace tessera
