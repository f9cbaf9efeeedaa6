#pragma once
#include <string>
#include <string_view>

namespace tessera {

/// A file opened for appending, made where there is none. Errors: Error naming the path and the reason.
int open_for_append(const std::string& path);

/// Writes all bytes, in one call where the system allows. Errors: Error naming the path and the reason (full
/// disk).
void append_whole(int file, std::string_view bytes, const std::string& path);

}  // namespace tessera
