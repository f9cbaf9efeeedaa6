#pragma once
#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tessera {

/// A JSON object out of a file that others have made. Errors: Error that begins with `where` for malformed
/// text (with line and column; without the line where there is only one), another kind of value, duplicate
/// keys at any depth, nesting deeper than 64, or objects of more than `most_keys` keys (whose time grows with
/// the square of their number).
nlohmann::ordered_json parse_strict_json(std::string_view text, const std::string& where,
                                         size_t most_keys = 1'000'000);

/// A value for a message: as JSON, of what is long only the beginning.
std::string shown(const nlohmann::ordered_json& value);

}  // namespace tessera
