#include "recipes/values.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "recipes/error.h"

namespace tessera {

bool Rules::accepts(double value) const {
  return (lowest_itself ? value >= lowest : value > lowest) &&
         (highest_itself ? value <= highest : value < highest);
}

std::string Rules::limits() const {
  const bool low = std::isfinite(lowest), high = std::isfinite(highest);
  if (low && high && lowest_itself && highest_itself) return fmt::format("from {} to {}", lowest, highest);
  std::vector<std::string> parts;
  if (low) parts.push_back(fmt::format("{} {}", lowest_itself ? "at least" : "above", lowest));
  if (high) parts.push_back(fmt::format("{} {}", highest_itself ? "at most" : "below", highest));
  return join(parts);
}

void Bounds::add(Rules& rules) const {
  if (std::isfinite(lowest)) {
    rules.lowest = lowest;
    rules.lowest_itself = lowest_itself;
  }
  if (std::isfinite(highest)) {
    rules.highest = highest;
    rules.highest_itself = highest_itself;
  }
}

int64_t StepsOrPercent::steps(int64_t total) const {
  return std::llround(percent ? amount / 100 * static_cast<double>(total) : amount);
}

namespace {

std::string with_limits(const std::string& kind, const Rules& rules) {
  const std::string limits = rules.limits();
  return limits.empty() ? kind : kind + (limits.starts_with("from") ? " " : ", ") + limits;
}

/// Some YAML readers take 010 for eight.
bool has_leading_zero(const std::string& text) {
  const size_t begin = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
  return text.size() > begin + 1 && text[begin] == '0' &&
         std::isdigit(static_cast<unsigned char>(text[begin + 1]));
}

void refuse(const Section& section, const std::string& is_not, const std::string& valid, Problems& problems) {
  if (section.kind == Section::Kind::null) {
    problems.add("", "has no value; valid: " + valid);
  } else if (!section.quoted && has_leading_zero(section.text)) {
    problems.add("", section.text + " has a leading zero; valid: " + valid);
  } else {
    problems.add("", describe(section) + " is not " + is_not + "; valid: " + valid);
  }
}

/// Decimal digits with an optional sign.
bool looks_whole(const std::string& text) {
  const size_t begin = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
  if (begin == text.size() || text.find_first_not_of("0123456789", begin) != std::string::npos) return false;
  return !has_leading_zero(text);
}

template <class T>
bool parse_whole(const std::string& text, T& value) {
  const char* begin = text.data() + (text.starts_with('+') ? 1 : 0);
  const auto result = std::from_chars(begin, text.data() + text.size(), value);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

/// A decimal number: digits, point, exponent; no hexadecimal, infinity or nan. What is too large for a double
/// becomes infinite.
bool parse_real(const std::string& text, double& value) {
  const size_t begin = text.starts_with('-') || text.starts_with('+') ? 1 : 0;
  if (text.find_first_not_of("0123456789.eE+-") != std::string::npos || has_leading_zero(text)) return false;
  if (begin < text.size() && (text[begin] == '-' || text[begin] == '+')) return false;
  const char* last = text.data() + text.size();
  const auto result = std::from_chars(text.data() + begin, last, value);
  if (result.ec == std::errc::result_out_of_range) value = HUGE_VAL;
  if (text.starts_with('-')) value = -value;
  return result.ec != std::errc::invalid_argument && result.ptr == last;
}

template <class T>
bool read_whole(const Section& section, T& value, T lowest, T highest, const Rules& rules,
                Problems& problems) {
  const std::string valid = value_details::integer_text(rules);
  if (section.kind != Section::Kind::scalar || section.quoted || !looks_whole(section.text)) {
    refuse(section, "a whole number", valid, problems);
    return false;
  }
  T parsed{};
  if (!parse_whole(section.text, parsed) || parsed < lowest || parsed > highest ||
      !rules.accepts(static_cast<double>(parsed))) {
    const bool limited = !rules.limits().empty();
    problems.add("", section.text + " is out of range; valid: " +
                         (limited ? valid : fmt::format("whole number from {} to {}", lowest, highest)));
    return false;
  }
  value = parsed;
  return true;
}

}  // namespace

namespace value_details {

bool read_integer(const Section& section, int64_t& value, int64_t lowest, int64_t highest, const Rules& rules,
                  Problems& problems) {
  return read_whole<int64_t>(section, value, lowest, highest, rules, problems);
}

bool read_unsigned(const Section& section, uint64_t& value, const Rules& rules, Problems& problems) {
  return read_whole<uint64_t>(section, value, 0, std::numeric_limits<uint64_t>::max(), rules, problems);
}

bool read_real(const Section& section, double& value, const Rules& rules, Problems& problems) {
  double parsed = 0;
  if (section.kind != Section::Kind::scalar || section.quoted || !parse_real(section.text, parsed)) {
    refuse(section, "a number", real_text(rules), problems);
    return false;
  }
  if (!std::isfinite(parsed) || !rules.accepts(parsed)) {
    problems.add("", section.text + " is out of range; valid: " + real_text(rules));
    return false;
  }
  value = parsed;
  return true;
}

bool read_name(const Section& section, size_t& index, const std::vector<std::string>& names,
               Problems& problems) {
  if (section.kind != Section::Kind::scalar) {
    refuse(section, "a name", join(names), problems);
    return false;
  }
  const auto found = std::find(names.begin(), names.end(), section.text);
  if (found == names.end()) {
    problems.add("", "'" + section.text + "' is not known" + valid_names(section.text, names));
    return false;
  }
  index = static_cast<size_t>(found - names.begin());
  return true;
}

Section write_real(double value) { return Section::scalar(fmt::format("{}", value)); }
std::string integer_text(const Rules& rules) { return with_limits("whole number", rules); }
std::string real_text(const Rules& rules) { return with_limits("number", rules); }

}  // namespace value_details

bool Value<bool>::read(const Section& section, bool& value, const Rules& rules, Problems& problems) {
  if (section.kind != Section::Kind::scalar || section.quoted ||
      (section.text != "true" && section.text != "false")) {
    refuse(section, "a truth value", valid(rules), problems);
    return false;
  }
  value = section.text == "true";
  return true;
}

bool Value<std::string>::read(const Section& section, std::string& value, const Rules& rules,
                              Problems& problems) {
  if (!rules.names.empty()) {
    size_t index = 0;
    if (!value_details::read_name(section, index, rules.names, problems)) return false;
    value = rules.names[index];
    return true;
  }
  if (section.kind != Section::Kind::scalar) {
    refuse(section, "a text", valid(rules), problems);
    return false;
  }
  value = section.text;
  return true;
}

std::string Value<std::string>::valid(const Rules& rules) {
  return rules.names.empty() ? "text" : join(rules.names);
}

bool Value<StepsOrPercent>::read(const Section& section, StepsOrPercent& value, const Rules& rules,
                                 Problems& problems) {
  const bool scalar = section.kind == Section::Kind::scalar && !section.quoted;
  const bool percent = scalar && section.text.ends_with('%');
  const std::string number = percent ? section.text.substr(0, section.text.size() - 1) : section.text;
  StepsOrPercent parsed{0, percent};
  if (!scalar || !(percent ? parse_real(number, parsed.amount)
                           : looks_whole(number) && parse_real(number, parsed.amount))) {
    refuse(section, "a number of steps or a per cent", valid(rules), problems);
    return false;
  }
  if (!(parsed.amount >= 0) || (percent && parsed.amount > 100) || parsed.amount > 1e15) {
    problems.add("", section.text + " is out of range; valid: steps, at least 0, or from 0% to 100%");
    return false;
  }
  value = parsed;
  return true;
}

Section Value<StepsOrPercent>::write(const StepsOrPercent& value) {
  return Section::scalar(fmt::format("{}{}", value.amount, value.percent ? "%" : ""));
}

}  // namespace tessera
