#pragma once
#include <limits>
#include <string>
#include <vector>

namespace tessera {

struct ChoiceTable;

/// What a field accepts beyond its type. Fields name their rules one by one: v("rank", t.rank, "…", required,
/// at_least(1)).
struct Rules {
  bool required = false;
  bool changeable = false;
  bool new_phase = false;
  double lowest = -std::numeric_limits<double>::infinity();
  double highest = std::numeric_limits<double>::infinity();
  bool lowest_itself = true, highest_itself = true;
  std::vector<std::string> names;      // texts: only these
  const ChoiceTable* table = nullptr;  // choices

  bool accepts(double value) const;
  std::string limits() const;  ///< "from 1 to 10", "at least 0", "above 0, below 1", or ""
};

/// Must be written in the recipe.
inline constexpr struct Required {
  void add(Rules& rules) const { rules.required = true; }
} required;

/// May differ when a run is resumed: the checkpoint stays meaningful.
inline constexpr struct Changeable {
  void add(Rules& rules) const { rules.changeable = true; }
} changeable;

/// May differ when a run starts from another run's checkpoint (run.resume: PATH), as a second phase on other
/// data does.
inline constexpr struct NewPhase {
  void add(Rules& rules) const { rules.new_phase = true; }
} new_phase;

struct Bounds {
  double lowest, highest;
  bool lowest_itself = true, highest_itself = true;
  void add(Rules& rules) const;
};
inline constexpr double unlimited = std::numeric_limits<double>::infinity();
inline constexpr Bounds range(double lowest, double highest) { return {lowest, highest}; }
inline constexpr Bounds at_least(double lowest) { return {lowest, unlimited}; }
inline constexpr Bounds above(double lowest) { return {lowest, unlimited, false, true}; }
inline constexpr Bounds below(double highest) { return {-unlimited, highest, true, false}; }

struct OneOf {
  std::vector<std::string> names;
  void add(Rules& rules) const { rules.names = names; }
};
/// Texts out of a list. (An enum needs no rule: see names_of() in values.h.)
inline OneOf one_of(std::vector<std::string> names) { return {std::move(names)}; }

struct From {
  const ChoiceTable* table;
  void add(Rules& rules) const { rules.table = table; }
};
/// For a Choice: the table that it is taken from.
inline From from(const ChoiceTable& table) { return {&table}; }

template <class... R>
Rules make_rules(const R&... rules) {
  Rules all;
  (rules.add(all), ...);
  return all;
}

}  // namespace tessera
