#include "trainer/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "recipes/error.h"

namespace tessera {
namespace {
constexpr int64_t write_bytes = 8 << 20;  // large, yet small enough to overlap with the disk
}

int open_for_append(const std::string& path) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0) throw Error(fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
  return file;
}

void append_whole(int file, std::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const auto written = ::write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw Error(fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
    bytes.remove_prefix(static_cast<size_t>(written));
  }
}

void fail_with_reason(const std::string& path, const std::string& what) {
  const int code = errno;
  std::string text = fmt::format("{}: {}: {}", path, what, std::strerror(code));
  struct statvfs about {};
  const std::string parent = std::filesystem::path(path).parent_path();
  if (code == ENOSPC && statvfs(parent.c_str(), &about) == 0) {
    text += fmt::format(" ({:.1f} MB free)", double(about.f_bavail) * double(about.f_frsize) / 1e6);
  }
  throw Error(text);
}

OpenFile::OpenFile(const std::string& path, int flags)
    : path_(path), descriptor_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
  if (descriptor_ < 0) fail_with_reason(path, "cannot be opened");
}
OpenFile::OpenFile(OpenFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      pending_begin_(other.pending_begin_),
      pending_end_(other.pending_end_) {}
OpenFile::~OpenFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

int64_t OpenFile::size() const {
  struct stat about {};
  if (fstat(descriptor_, &about) != 0) fail_with_reason(path_, "cannot be examined");
  return about.st_size;
}

void OpenFile::read(int64_t at, void* data, int64_t bytes) const {
  auto* to = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = pread(descriptor_, to, size_t(bytes), at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_with_reason(path_, "cannot be read");
    if (got == 0) throw Error(fmt::format("{}: ends at byte {}, more was expected: truncated?", path_, at));
    to += got, at += got, bytes -= got;
  }
}

void OpenFile::write(int64_t at, const void* data, int64_t bytes) {
  const auto* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t done = pwrite(descriptor_, from, size_t(std::min(bytes, write_bytes)), at);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail_with_reason(path_, "cannot be written");
    if (at != pending_end_) pending_begin_ = at;
    from += done, at += done, bytes -= done;
    pending_end_ = at;
    // The disk starts now, so that the fsync at the end has little left to wait for.
    if (pending_end_ - pending_begin_ >= write_bytes) {
      sync_file_range(descriptor_, pending_begin_, pending_end_ - pending_begin_, SYNC_FILE_RANGE_WRITE);
      pending_begin_ = pending_end_;
    }
  }
}

void OpenFile::reserve(int64_t bytes) {
  if (bytes == 0 || fallocate(descriptor_, FALLOC_FL_KEEP_SIZE, 0, bytes) == 0) return;
  if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG) {
    fail_with_reason(path_, fmt::format("cannot take {:.1f} MB", double(bytes) / 1e6));
  }
}

void OpenFile::sync() {
  if (fsync(descriptor_) != 0) fail_with_reason(path_, "cannot be made durable");
}

}  // namespace tessera
