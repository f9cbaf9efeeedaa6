#pragma once
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace tessera {

/// A JSON object out of a file that others have made. Errors: Error that begins with `where` for malformed
/// text (with line and column), another kind of value, duplicate keys at any depth, or nesting deeper than
/// 64.
nlohmann::ordered_json parse_strict_json(std::string_view text, const std::string& where);

}  // namespace tessera
