#include "trainer/hugging_face/strict_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <vector>

#include "recipes/error.h"

namespace tessera {

using nlohmann::ordered_json;

ordered_json parse_strict_json(std::string_view text, const std::string& where) {
  constexpr int deepest = 64;
  std::vector<std::set<std::string>> keys;  // of the objects that are open
  const ordered_json::parser_callback_t watch = [&](int depth, ordered_json::parse_event_t event,
                                                    ordered_json& value) {
    using Event = ordered_json::parse_event_t;
    if (depth > deepest) throw Error(fmt::format("{}: values nested deeper than {}", where, deepest));
    if (event == Event::object_start) {
      keys.emplace_back();
    } else if (event == Event::object_end) {
      keys.pop_back();
    } else if (event == Event::key && !keys.back().insert(value.get<std::string>()).second) {
      throw Error(fmt::format("{}: the key '{}' stands twice", where, value.get<std::string>()));
    }
    return true;
  };
  ordered_json json;
  try {
    json = ordered_json::parse(text, watch);
  } catch (const ordered_json::parse_error& error) {
    const std::string what = error.what();
    // "[json.exception.parse_error.101] parse error at line 1, …; last read: '…'", which may be any bytes.
    const size_t begin = std::min(what.find("at line"), what.size()), end = what.find("; last read");
    throw Error(fmt::format("{}: not JSON: {}", where, what.substr(begin, end - begin)));
  }
  if (!json.is_object()) throw Error(fmt::format("{}: a JSON {}, not an object", where, json.type_name()));
  return json;
}

}  // namespace tessera
