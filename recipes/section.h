#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "recipes/problems.h"

namespace tessera {

struct SectionEntry;

/// A YAML node that knows where it was written. Unlike yaml-cpp's own nodes it keeps the text of scalars as
/// written (yaml-cpp 0.7 reads 010 as 8) and has each key once (duplicates were reported).
struct Section {
  enum class Kind { null, scalar, list, map };
  Kind kind = Kind::null;
  Place place;
  std::string text;                   ///< scalars
  bool quoted = false;                ///< a scalar in quotes: never a number, a truth value or null
  std::vector<Section> items;         ///< lists
  std::vector<SectionEntry> entries;  ///< maps, in the order of the file

  static Section scalar(std::string text, bool quoted = false);
  static Section list(std::vector<Section> items);
  static Section map();

  bool is_map() const { return kind == Kind::map; }
  const SectionEntry* find(std::string_view key) const;  ///< null when absent, or when this is no map
  SectionEntry* find(std::string_view key);
  void set(const std::string& key, Section value);  ///< appends, or replaces the value
};

struct SectionEntry {
  std::string key;
  Place place;  ///< of the key
  Section value;
};

/// Parses YAML. `origin` names the text in messages. Problems: syntax, duplicate keys, several documents,
/// keys that are not names, control characters. Aliases and `<<` merges are resolved. A text without content
/// gives a null section, one that cannot be parsed gives nothing.
std::optional<Section> parse_yaml(std::string_view text, const Place& origin, ProblemList& problems);

/// Puts `over` on top of `base`: maps merge deeply, anything else is replaced.
void merge(Section& base, const Section& over);

/// "'abc'", "a list", "a section": how a message shows a value.
std::string describe(const Section& section);

/// YAML text: two levels of sections in blocks, what is deeper on one line. parse_yaml() gives the same
/// section back.
std::string to_yaml(const Section& section);

/// A value on one line: "[1, 2]", "{path: a, weight: 2}", "5e-4".
std::string to_line(const Section& section);

}  // namespace tessera
