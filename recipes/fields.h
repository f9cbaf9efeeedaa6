#pragma once
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "recipes/error.h"
#include "recipes/values.h"

/// Typed sections. A config struct has, beside it and found by argument-dependent lookup, one function that
/// lists its keys with their meaning (units!) and rules; the struct's initialisers are the defaults:
///
///   struct Dropout { double attention = 0.1; int64_t every = 0; };
///   template <class V> void fields(Dropout& d, V& v) {
///     v("attention", d.attention, "share of attention weights set to zero", range(0, 1));
///     v("every", d.every, "layers between two dropouts", required, at_least(1));
///   }
///   inline void check(const Dropout& d, Problems& problems);    // optional: what one key alone cannot tell
///
/// It drives reading (read_fields), the dump of the resolved recipe (write_fields) and the reference
/// (list_fields). A field may itself be such a struct.
namespace tessera {

/// One row of the reference.
struct FieldRow {
  std::string key;
  std::string docs;
  std::string valid;
  std::string standard;  ///< the default on one line; "" when required
  Rules rules;
  std::vector<FieldRow> inside;  ///< of a nested section
};

namespace field_details {

struct Probe {
  template <class... A>
  void operator()(A&&...) {}
};

template <class T>
concept HasFields = requires(T& t, Probe& v) {
  fields(t, v);
};

/// Sections are read even when they are not written: they may have required keys.
template <class T>
concept IsSection = HasFields<T> || requires {
  Value<T>::is_section;
};

template <class T>
concept HasCheck = requires(const T& t, Problems& problems) {
  check(t, problems);
};

void report_missing(const std::string& name, const std::string& docs, const std::string& valid,
                    Problems& problems);

}  // namespace field_details

/// Reads one struct's keys from a section; reports what is wrong with each.
class FieldReader {
 public:
  FieldReader(const Section& section, Problems& problems) : section_(section), problems_(problems) {}

  template <class T, class... R>
  void operator()(const char* name, T& value, const char* docs, const R&... given) {
    const Rules rules = make_rules(given...);
    names_.emplace_back(name);
    const SectionEntry* entry = section_.find(name);
    if (!entry && !field_details::IsSection<T>) {
      if (rules.required) field_details::report_missing(name, docs, Value<T>::valid(rules), problems_);
      return;
    }
    const Section nothing;
    Problems inside = problems_.inside(name);
    Value<T>::read(entry ? entry->value : nothing, value, rules, inside);
  }

  /// Reports keys that no field took. `known_elsewhere` may excuse some.
  void finish(const std::function<bool(const SectionEntry&)>& known_elsewhere = {});

 private:
  const Section& section_;
  Problems& problems_;
  std::vector<std::string> names_;
};

class FieldWriter {
 public:
  template <class T, class... R>
  void operator()(const char* name, T& value, const char*, const R&... given) {
    if constexpr (requires { Value<T>::write(value, Rules{}); }) {
      section.set(name, Value<T>::write(value, make_rules(given...)));
    } else {
      section.set(name, Value<T>::write(value));
    }
  }
  Section section = Section::map();
};

class FieldLister {
 public:
  template <class T, class... R>
  void operator()(const char* name, T& value, const char* docs, const R&... given) {
    FieldRow row{name, docs, "", "", make_rules(given...), {}};
    if constexpr (field_details::HasFields<T>) {
      FieldLister inner;
      fields(value, inner);
      row.inside = std::move(inner.rows);
    } else {
      row.valid = Value<T>::valid(row.rules);
      if constexpr (!field_details::IsSection<T>) {
        if (!row.rules.required) row.standard = to_line(Value<T>::write(value));
      }
    }
    rows.push_back(std::move(row));
  }
  std::vector<FieldRow> rows;
};

/// Reads `section` (a map, or null for no keys) into `value`. False when there were problems; all are
/// reported.
template <field_details::HasFields T>
bool read_fields(const Section& section, T& value, Problems& problems,
                 const std::function<bool(const SectionEntry&)>& known_elsewhere = {}) {
  const size_t before = problems.size();
  if (!section.is_map() && section.kind != Section::Kind::null) {
    FieldLister keys;
    fields(value, keys);
    std::vector<std::string> names;
    for (const auto& row : keys.rows) names.push_back(row.key);
    problems.add("", describe(section) + " is not a section; valid: a section with the keys " + join(names));
    return false;
  }
  FieldReader reader(section, problems);
  fields(value, reader);
  reader.finish(known_elsewhere);
  if constexpr (field_details::HasCheck<T>) {
    if (problems.size() == before) check(std::as_const(value), problems);
  }
  return problems.size() == before;
}

template <field_details::HasFields T>
Section write_fields(const T& value) {
  T copy = value;  // fields() takes a mutable struct, for reading
  FieldWriter writer;
  fields(copy, writer);
  return std::move(writer.section);
}

template <field_details::HasFields T>
std::vector<FieldRow> list_fields(T value = {}) {
  FieldLister lister;
  fields(value, lister);
  return std::move(lister.rows);
}

template <field_details::HasFields T>
struct Value<T> {
  static bool read(const Section& section, T& value, const Rules&, Problems& problems) {
    return read_fields(section, value, problems);
  }
  static Section write(const T& value) { return write_fields(value); }
  static std::string valid(const Rules&) {
    std::vector<std::string> keys;
    for (const auto& row : list_fields(T{})) keys.push_back(row.key);
    return "{" + join(keys) + "}";
  }
};

}  // namespace tessera
