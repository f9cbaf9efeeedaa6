#include "parallel/check.h"

#include <fmt/format.h>
#include <mpi.h>

#include <stdexcept>

namespace tessera {

void check_mpi(int status, const char* what) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw_foreign("MPI", what, std::string(text, static_cast<size_t>(length)));
}

void throw_foreign(const char* library, const char* what, const std::string& text) {
  throw std::runtime_error(fmt::format("{}: {}: {}", library, what, text));
}

}  // namespace tessera
