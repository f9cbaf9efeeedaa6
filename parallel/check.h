#pragma once
#include <string>

namespace tessera {

/// Status codes of the libraries of messages become exceptions here, and only here.
/// Throws std::runtime_error "MPI: <what>: <the library's text>" unless `status` is MPI_SUCCESS.
void check_mpi(int status, const char* what);

/// "NCCL: <what>: <text>"; for libraries that this file does not link.
[[noreturn]] void throw_foreign(const char* library, const char* what, const std::string& text);

}  // namespace tessera
