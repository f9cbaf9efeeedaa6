#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "recipes/rules.h"
#include "recipes/section.h"

namespace tessera {

/// How a field of type T is read, written and described. Specialise it for a new kind of value:
///   static bool read(const Section&, T&, const Rules&, Problems&);   reports and gives false when it is not
///   one static Section write(const T&); static std::string valid(const Rules&); "whole number, at least 1"
template <class T>
struct Value;

/// "100" steps or "5%" of all steps.
struct StepsOrPercent {
  double amount = 0;
  bool percent = false;
  int64_t steps(int64_t total) const;  ///< of `total` steps, rounded to the nearest
  bool operator==(const StepsOrPercent&) const = default;
};

namespace value_details {
bool read_integer(const Section&, int64_t&, int64_t lowest, int64_t highest, const Rules&, Problems&);
bool read_unsigned(const Section&, uint64_t&, const Rules&, Problems&);
bool read_real(const Section&, double&, const Rules&, Problems&);
bool read_name(const Section&, size_t& index, const std::vector<std::string>& names, Problems&);
Section write_real(double);
std::string integer_text(const Rules&);
std::string real_text(const Rules&);
}  // namespace value_details

template <>
struct Value<bool> {
  static bool read(const Section&, bool&, const Rules&, Problems&);
  static Section write(bool value) { return Section::scalar(value ? "true" : "false"); }
  static std::string valid(const Rules&) { return "true, false"; }
};

template <>
struct Value<std::string> {
  static bool read(const Section&, std::string&, const Rules&, Problems&);
  static Section write(const std::string& value) { return Section::scalar(value, true); }
  static std::string valid(const Rules&);
};

template <>
struct Value<StepsOrPercent> {
  static bool read(const Section&, StepsOrPercent&, const Rules&, Problems&);
  static Section write(const StepsOrPercent&);
  static std::string valid(const Rules&) {
    return "whole number of steps, or per cent of all steps such as 5%";
  }
};

template <class T>
requires(std::is_integral_v<T> && !std::is_same_v<T, bool>) struct Value<T> {
  static bool read(const Section& section, T& value, const Rules& rules, Problems& problems) {
    if constexpr (std::is_same_v<T, uint64_t>) {
      return value_details::read_unsigned(section, value, rules, problems);
    } else {
      int64_t wide = 0;
      if (!value_details::read_integer(section, wide, std::numeric_limits<T>::min(),
                                       std::numeric_limits<T>::max(), rules, problems)) {
        return false;
      }
      value = static_cast<T>(wide);
      return true;
    }
  }
  static Section write(T value) { return Section::scalar(std::to_string(value)); }
  static std::string valid(const Rules& rules) { return value_details::integer_text(rules); }
};

template <class T>
requires std::is_floating_point_v<T>
struct Value<T> {
  static bool read(const Section& section, T& value, const Rules& rules, Problems& problems) {
    double wide = 0;
    if (!value_details::read_real(section, wide, rules, problems)) return false;
    value = static_cast<T>(wide);
    return true;
  }
  static Section write(T value) { return value_details::write_real(value); }
  static std::string valid(const Rules& rules) { return value_details::real_text(rules); }
};

/// Enums with consecutive values from 0 and, beside them, std::vector<std::string> names_of(TheEnum).
template <class T>
requires std::is_enum_v<T>
struct Value<T> {
  static bool read(const Section& section, T& value, const Rules&, Problems& problems) {
    size_t index = 0;
    if (!value_details::read_name(section, index, names_of(T{}), problems)) return false;
    value = static_cast<T>(index);
    return true;
  }
  static Section write(T value) {
    return Section::scalar(names_of(T{}).at(static_cast<size_t>(value)), true);
  }
  static std::string valid(const Rules&) {
    std::string text;
    for (const auto& name : names_of(T{})) text += (text.empty() ? "" : ", ") + name;
    return text;
  }
};

/// null in the recipe: not given.
template <class T>
struct Value<std::optional<T>> {
  static bool read(const Section& section, std::optional<T>& value, const Rules& rules, Problems& problems) {
    value.reset();
    if (section.kind == Section::Kind::null) return true;
    T inner{};
    if (!Value<T>::read(section, inner, rules, problems)) return false;
    value = std::move(inner);
    return true;
  }
  static Section write(const std::optional<T>& value) { return value ? Value<T>::write(*value) : Section(); }
  static std::string valid(const Rules& rules) { return Value<T>::valid(rules); }
};

template <class T>
struct Value<std::vector<T>> {
  static bool read(const Section& section, std::vector<T>& values, const Rules& rules, Problems& problems) {
    if (section.kind != Section::Kind::list) {
      problems.add("", describe(section) + " is not a list; valid: " + valid(rules));
      return false;
    }
    values.assign(section.items.size(), T{});
    bool good = true;
    for (size_t i = 0; i < values.size(); ++i) {
      Problems at = problems.item(i, section.items[i]);
      good = Value<T>::read(section.items[i], values[i], rules, at) && good;
    }
    return good;
  }
  static Section write(const std::vector<T>& values) {
    Section section = Section::list({});
    for (const auto& value : values) section.items.push_back(Value<T>::write(value));
    return section;
  }
  static std::string valid(const Rules& rules) { return "list of: " + Value<T>::valid(rules); }
};

}  // namespace tessera
