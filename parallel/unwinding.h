#pragma once
#include <exception>

namespace tessera {

/// True for who is destroyed because an exception passes through the block that made it: other ranks may
/// never come again, so nothing may wait for them.
class Unwinding {
 public:
  explicit operator bool() const { return std::uncaught_exceptions() > at_start_; }

 private:
  int at_start_ = std::uncaught_exceptions();
};

}  // namespace tessera
