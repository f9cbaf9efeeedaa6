#include "datasets/strict_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <vector>

#include "recipes/error.h"

namespace tessera {

using nlohmann::ordered_json;

ordered_json parse_strict_json(std::string_view text, const std::string& where, size_t most_keys) {
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
      throw Error(fmt::format("{}: the key '{:.60}' stands twice", where, value.get<std::string>()));
    } else if (event == Event::key && keys.back().size() > most_keys) {
      throw Error(fmt::format("{}: an object of more than {} keys", where, most_keys));
    }
    return true;
  };
  ordered_json json;
  try {
    json = ordered_json::parse(text, watch);
  } catch (const ordered_json::out_of_range&) {
    throw Error(fmt::format("{}: not JSON: a number out of the range of double precision", where));
  } catch (const ordered_json::parse_error& error) {
    const std::string what = error.what();
    // "[json.exception.parse_error.101] parse error at line 1, …; last read: '…'", which may be any bytes.
    const bool one_line = text.find('\n') == text.npos;  // `where` may number the line
    const size_t begin = std::min(what.find(one_line ? "column" : "line"), what.size());
    throw Error(
        fmt::format("{}: not JSON: at {}", where, what.substr(begin, what.find("; last read") - begin)));
  }
  if (!json.is_object()) throw Error(fmt::format("{}: a JSON {}, not an object", where, json.type_name()));
  return json;
}

std::string shown(const nlohmann::ordered_json& value) {
  constexpr size_t longest = 100;
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true);
  if (text.size() > longest) text = text.substr(0, longest) + "…";
  return text;
}

}  // namespace tessera
