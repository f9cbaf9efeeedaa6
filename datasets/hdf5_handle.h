#pragma once
// Inside of hdf5*.cpp only: handles that close themselves and status codes that become Errors.
#include <hdf5.h>

#include <string>
#include <utility>
#include <vector>

#include "datasets/hdf5.h"

namespace tessera::hdf5 {

/// An HDF5 identifier that is closed at the end of its scope.
class Handle {
 public:
  using Close = herr_t (*)(hid_t);
  Handle(hid_t id, Close close) : id_(id), close_(close) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), close_(other.close_) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Handle() {
    if (id_ >= 0) close_(id_);
  }
  operator hid_t() const { return id_; }  // NOLINT(google-explicit-constructor): it goes where hid_t goes

 private:
  hid_t id_;
  Close close_;
};

/// Must run before HDF5's calls of each thread: no stack traces of HDF5's on stderr.
void silence();

/// Why the last call of this thread failed: the system's message if there is one, else HDF5's innermost. Any
/// further call forgets it, the closing of handles too.
std::string reason();

/// Throws Error "file: what: reason".
[[noreturn]] void fail(const std::string& file, const std::string& what);

/// Passes a non-negative status on, throws otherwise.
template <typename T>
T check(T status, const std::string& file, const std::string& what) {
  if (status < 0) fail(file, what);
  return status;
}

Handle memory_type(Type type);
/// Type of stored elements; throws Error for those that we do not know. Variable-length rows give their
/// element type.
Type type_of(hid_t stored, const std::string& file, const std::string& name);
/// A simple space; scalar for an empty shape.
Handle space_of(const std::vector<int64_t>& shape);
Handle text_type(size_t bytes);
std::string in_words(const std::vector<int64_t>& shape);

}  // namespace tessera::hdf5
