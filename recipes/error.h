#pragma once
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

/// A mistake that the user can mend: in a recipe, a path, a file, the number of ranks. The message says what
/// is wrong, where, and what is valid; the program prints it once, without a stack trace, and ends with exit
/// code 2. Of a line that quotes what nobody would read, the middle is left out.
class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& message);
};

/// The candidate closest to `given` by edit distance, or "" when none is near enough to be a likely typo.
std::string nearest(std::string_view given, const std::vector<std::string>& candidates);

/// "a, b, c"
std::string join(const std::vector<std::string>& parts, std::string_view separator = ", ");

/// "; valid: a, b, c; did you mean 'b'?" for messages about an unknown name.
std::string valid_names(std::string_view given, const std::vector<std::string>& candidates);

}  // namespace tessera
