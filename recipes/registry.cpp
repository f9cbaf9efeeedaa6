#include "recipes/registry.h"

#include <algorithm>
#include <charconv>

#include "recipes/error.h"

namespace tessera {

const ChoiceEntry* ChoiceTable::find(const std::string& name) const {
  const auto found =
      std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return entry.name == name; });
  return found == entries.end() ? nullptr : &*found;
}

std::vector<std::string> ChoiceTable::names() const {
  std::vector<std::string> all;
  for (const auto& entry : entries) all.push_back(entry.name);
  return all;
}

Section Choice::write() const { return type_ ? type_->write(options_) : Section::map(); }

namespace {

template <class Number>
std::optional<Number> written_number(const Section& written, const std::string& key) {
  const SectionEntry* entry = written.find(key);
  if (!entry || entry->value.kind != Section::Kind::scalar || entry->value.quoted) return std::nullopt;
  const std::string& text = entry->value.text;
  Number value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<int64_t> Choice::integer(const std::string& key) const {
  return written_number<int64_t>(write(), key);
}

std::optional<double> Choice::number(const std::string& key) const {
  return written_number<double>(write(), key);
}

std::optional<std::string> Choice::text(const std::string& key) const {
  const Section written = write();
  const SectionEntry* entry = written.find(key);
  if (!entry || entry->value.kind != Section::Kind::scalar) return std::nullopt;
  return entry->value.text;
}

namespace {

/// When a later layer (an including file, the command line) chose another name, the keys that an earlier
/// layer gave for its own choice are dropped, if they belong to some other entry of the table; typos stay
/// errors.
bool left_from_another_choice(const SectionEntry& entry, const Place& name, const ChoiceTable& table) {
  if (entry.place.layer >= name.layer) return false;
  return std::any_of(table.entries.begin(), table.entries.end(), [&](const ChoiceEntry& choice) {
    const auto rows = choice.options->list();
    return std::any_of(rows.begin(), rows.end(), [&](const FieldRow& row) { return row.key == entry.key; });
  });
}

}  // namespace

bool Value<Choice>::read(const Section& section, Choice& choice, const Rules& rules, Problems& problems) {
  const ChoiceTable& table = *rules.table;
  if (!section.is_map() && section.kind != Section::Kind::null) {
    problems.add("", describe(section) + " is not a section; valid: a section with the key " + table.key);
    return false;
  }
  const SectionEntry* name = section.find(table.key);
  if (!name && section.entries.empty() && !table.standard.empty()) {
    choice = Choice(*table.find(table.standard));
    return true;
  }
  if (!name) {
    problems.add(table.key, "missing; valid: " + valid(rules));
    for (const auto& entry : section.entries) {
      if (!nearest(entry.key, {table.key}).empty()) {
        problems.add_at(entry.place, entry.key, "unknown key; did you mean '" + table.key + "'?");
      }
    }
    return false;
  }
  Problems at_name = problems.inside(table.key);
  size_t index = 0;
  if (!value_details::read_name(name->value, index, table.names(), at_name)) return false;
  choice = Choice(table.entries[index]);
  Section options = section;
  std::erase_if(options.entries, [&](const SectionEntry& entry) { return entry.key == table.key; });
  return choice.type_->read(options, choice.options_, problems, [&](const SectionEntry& entry) {
    return left_from_another_choice(entry, name->value.place, table);
  });
}

Section Value<Choice>::write(const Choice& choice, const Rules& rules) {
  Section section = Section::map();
  section.set(rules.table->key, Section::scalar(choice.name(), true));
  for (auto& entry : choice.write().entries) section.entries.push_back(std::move(entry));
  return section;
}

std::string Value<Choice>::valid(const Rules& rules) { return join(rules.table->names()); }

}  // namespace tessera
