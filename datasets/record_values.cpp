// What a value of a record is read as.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>
#include <utility>

#include "datasets/records.h"
#include "recipes/error.h"

namespace tessera {
namespace {

using nlohmann::ordered_json;

constexpr const char* blanks = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const size_t begin = std::min(text.find_first_not_of(blanks), text.size());
  return text.substr(begin, text.find_last_not_of(blanks) + 1 - begin);
}

/// The whole text as a number.
template <class Number>
std::optional<Number> parsed(std::string_view text) {
  text = trimmed(text);
  Number value{};
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

[[noreturn]] void refuse(const ordered_json& value, const std::string& where, const char* expected) {
  const auto kind = [&]() -> std::string {
    if (value.is_string()) return fmt::format("the text '{:.60}'", value.get<std::string>());
    if (value.is_array()) return "a list";
    return value.is_object() ? "an object" : value.dump();
  };
  throw Error(fmt::format("{} is {}; valid: {}", where, kind(), expected));
}

std::string text_of(const ordered_json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_number() && !value.is_boolean()) refuse(value, where, "text");
  return value.dump();
}

std::optional<int64_t> whole(double value) {
  constexpr double most = 9007199254740992.0;  // beyond 2^53 not every integer is a double
  if (value != std::floor(value) || std::abs(value) > most) return std::nullopt;
  return static_cast<int64_t>(value);
}

int64_t integer_of(const ordered_json& value, const std::string& where) {
  std::optional<int64_t> result;
  if (value.is_boolean()) {
    result = value.get<bool>() ? 1 : 0;
  } else if (value.is_number_float()) {
    result = whole(value.get<double>());
  } else if (value.is_number()) {
    result = parsed<int64_t>(value.dump());  // one that needs 64 bits without a sign does not fit
  } else if (value.is_string()) {
    const auto text = value.get<std::string>();
    result = parsed<int64_t>(text);
    if (const auto fraction = parsed<double>(text); !result && fraction) result = whole(*fraction);
  }
  if (!result) refuse(value, where, "an integer of 64 bits");
  return *result;
}

std::vector<std::string> words_of(std::string_view text) {
  std::vector<std::string> words;
  for (size_t begin = text.find_first_not_of(blanks); begin < text.size();) {
    const size_t end = std::min(text.find_first_of(blanks, begin), text.size());
    words.emplace_back(text.substr(begin, end - begin));
    begin = text.find_first_not_of(blanks, end);
  }
  return words;
}

/// read(element, where it is) of each element.
template <class Read>
auto read_all(const ordered_json& list, const std::string& where, const Read& read) {
  std::vector<decltype(read(list, where))> values;
  values.reserve(list.size());
  for (const auto& element : list)
    values.push_back(read(element, fmt::format("{}: element {}", where, values.size())));
  return values;
}

}  // namespace

std::string Records::where(int64_t i, const std::string& column) const {
  return fmt::format("{}: column '{}'", where(i), column);
}

std::string Records::text(int64_t i, const std::string& column) const {
  return text_of(json(i, column), where(i, column));
}

int64_t Records::integer(int64_t i, const std::string& column) const {
  return integer_of(json(i, column), where(i, column));
}

double Records::number(int64_t i, const std::string& column) const {
  const ordered_json value = json(i, column);
  std::optional<double> result;
  if (value.is_number()) result = value.get<double>();
  if (value.is_string()) result = parsed<double>(value.get<std::string>());
  if (!result || !std::isfinite(*result)) refuse(value, where(i, column), "a finite number");
  return *result;
}

ordered_json Records::list(int64_t i, const std::string& column) const {
  ordered_json value = json(i, column);
  if (format_ == Format::json) {
    if (!value.is_array()) refuse(value, where(i, column), "a list");
    return value;
  }
  const std::string text = value.get<std::string>();
  const std::string_view inner = trimmed(text);
  if (!inner.starts_with('[') || !inner.ends_with(']')) return words_of(text);
  ordered_json list = ordered_json::parse(inner, nullptr, false);
  if (!list.is_array())
    refuse(value, where(i, column), "a JSON list, [\"a\", \"b\"], or words separated by spaces");
  return list;
}

std::vector<std::string> Records::texts(int64_t i, const std::string& column) const {
  return read_all(list(i, column), where(i, column), text_of);
}

std::vector<int64_t> Records::integers(int64_t i, const std::string& column) const {
  return read_all(list(i, column), where(i, column), integer_of);
}

}  // namespace tessera
