#pragma once
#include <string>

namespace tessera {

/// Error "PATH: no such file or folder; did you mean '…'?" where there is none; the suggestion comes from its
/// folder.
void require_exists(const std::string& path);

}  // namespace tessera
