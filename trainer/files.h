#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace tessera {

/// A file opened for appending, made where there is none. Errors: Error naming the path and the reason.
int open_for_append(const std::string& path);

/// Writes all bytes, in one call where the system allows. Errors: Error naming the path and the reason (full
/// disk).
void append_whole(int file, std::string_view bytes, const std::string& path);

// Failures are Errors with the path and the system's reason.

/// An open file, closed at the end of its scope.
class OpenFile {
 public:
  OpenFile(const std::string& path, int flags);
  OpenFile(OpenFile&& other) noexcept;
  ~OpenFile();
  int64_t size() const;
  void read(int64_t at, void* data, int64_t bytes) const;  ///< Error when the file ends earlier
  void write(int64_t at, const void* data, int64_t bytes);
  void reserve(int64_t bytes);  ///< takes disk space now rather than fail midway, where the file system can
  void sync();

 private:
  std::string path_;
  int descriptor_;
  int64_t pending_begin_ = -1,
          pending_end_ = -1;  ///< written one after the other, and not yet on its way to the disk
};
[[noreturn]] void fail_with_reason(const std::string& path, const std::string& what);

}  // namespace tessera
