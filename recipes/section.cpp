#include "recipes/section.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <utility>

#include "recipes/error.h"

namespace tessera {

Section Section::scalar(std::string text, bool quoted) {
  Section section;
  section.kind = Kind::scalar;
  section.text = std::move(text);
  section.quoted = quoted;
  return section;
}

Section Section::list(std::vector<Section> items) {
  Section section;
  section.kind = Kind::list;
  section.items = std::move(items);
  return section;
}

Section Section::map() {
  Section section;
  section.kind = Kind::map;
  return section;
}

const SectionEntry* Section::find(std::string_view key) const {
  const auto found =
      std::find_if(entries.begin(), entries.end(), [&](const auto& entry) { return entry.key == key; });
  return found == entries.end() ? nullptr : &*found;
}

SectionEntry* Section::find(std::string_view key) {
  return const_cast<SectionEntry*>(std::as_const(*this).find(key));
}

void Section::set(const std::string& key, Section value) {
  kind = Kind::map;
  if (SectionEntry* entry = find(key)) {
    entry->value = std::move(value);
  } else {
    const Place where = value.place;
    entries.push_back({key, where, std::move(value)});
  }
}

void merge(Section& base, const Section& over) {
  if (!base.is_map() || !over.is_map()) {
    base = over;
    return;
  }
  for (const auto& entry : over.entries) {
    SectionEntry* mine = base.find(entry.key);
    if (!mine) {
      base.entries.push_back(entry);
    } else if (entry.value.is_map() && mine->value.is_map()) {
      if (entry.place.line != 0) mine->place = entry.place;  // a file's section says more than one override
      merge(mine->value, entry.value);
    } else {
      *mine = entry;
    }
  }
}

std::string describe(const Section& section) {
  switch (section.kind) {
    case Section::Kind::null:
      return "nothing";
    case Section::Kind::list:
      return "a list";
    case Section::Kind::map:
      return "a section";
    case Section::Kind::scalar:
      break;
  }
  return section.quoted ? "the quoted text '" + section.text + "'" : "'" + section.text + "'";
}

namespace {

/// Texts that YAML (or another reader of it) would take for something else, or that need escapes, go in
/// quotes.
bool needs_quotes(const std::string& text) {
  static const std::vector<std::string> words = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
  std::string lower = text;
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (std::find(words.begin(), words.end(), lower) != words.end()) return true;
  const auto plain = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || strchr("_./+%- ", c) != nullptr;
  };
  const bool starts = !text.empty() &&
                      (std::isalpha(static_cast<unsigned char>(text.front())) || strchr("_./", text.front()));
  return !starts || text.back() == ' ' || !std::all_of(text.begin(), text.end(), plain);
}

std::string quote(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

}  // namespace

std::string to_line(const Section& section) {
  std::vector<std::string> parts;
  switch (section.kind) {
    case Section::Kind::null:
      return "null";
    case Section::Kind::scalar:
      return section.quoted && needs_quotes(section.text) ? quote(section.text) : section.text;
    case Section::Kind::list:
      for (const auto& item : section.items) parts.push_back(to_line(item));
      return "[" + join(parts) + "]";
    case Section::Kind::map:
      break;
  }
  for (const auto& entry : section.entries) parts.push_back(entry.key + ": " + to_line(entry.value));
  return "{" + join(parts) + "}";
}

std::string to_yaml(const Section& section) {
  std::string out;
  for (const auto& [key, place, value] : section.entries) {
    if (!value.is_map() || value.entries.empty()) {
      out += fmt::format("{}: {}\n", key, to_line(value));
      continue;
    }
    out += key + ":\n";
    for (const auto& entry : value.entries) out += fmt::format("  {}: {}\n", entry.key, to_line(entry.value));
  }
  return out;
}

}  // namespace tessera
