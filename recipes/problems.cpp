#include "recipes/problems.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "recipes/error.h"
#include "recipes/section.h"

namespace tessera {

std::string Place::text() const { return line == 0 ? origin : fmt::format("{}:{}:{}", origin, line, column); }

void ProblemList::add(const Place& place, const std::string& key, const std::string& what) {
  std::string where = place.text();
  // An override shows its key already.
  const bool shown = place.line == 0 && where.find(" " + key + "=") != std::string::npos;
  if (!key.empty() && !shown) where += " " + key;
  problems_.push_back({place, where + ": " + what});
}

std::string ProblemList::text() const {
  std::vector<std::string> origins;
  for (const auto& problem : problems_) {
    if (std::find(origins.begin(), origins.end(), problem.place.origin) == origins.end()) {
      origins.push_back(problem.place.origin);
    }
  }
  const auto is_file = [&](const std::string& origin) {
    return std::any_of(problems_.begin(), problems_.end(), [&](const Problem& problem) {
      return problem.place.origin == origin && problem.place.line != 0;
    });
  };
  std::stable_partition(origins.begin(), origins.end(), is_file);  // the command line comes last
  std::vector<std::string> lines;
  for (const auto& origin : origins) {
    std::vector<const Problem*> own;
    for (const auto& problem : problems_) {
      if (problem.place.origin == origin) own.push_back(&problem);
    }
    std::stable_sort(own.begin(), own.end(), [](const Problem* a, const Problem* b) {
      return std::pair(a->place.line, a->place.column) < std::pair(b->place.line, b->place.column);
    });
    for (const Problem* problem : own) lines.push_back(problem->text);
  }
  return join(lines, "\n");
}

void ProblemList::throw_if_any() const {
  if (!problems_.empty()) throw Error(text());
}

Problems::Problems(ProblemList& list, const Section* section, Place place, std::string path)
    : list_(&list), section_(section), place_(std::move(place)), path_(std::move(path)) {}

std::string Problems::full_key(const std::string& key) const {
  if (path_.empty() || key.empty()) return path_ + key;
  return path_ + "." + key;
}

Problems Problems::inside(const std::string& key) const {
  const size_t dot = key.find('.');
  if (dot != std::string::npos) return inside(key.substr(0, dot)).inside(key.substr(dot + 1));
  const SectionEntry* entry = section_ ? section_->find(key) : nullptr;
  if (!entry) return {*list_, nullptr, place_, full_key(key)};
  // A section is shown where its name stands (so is nothing), a value where it stands itself.
  const bool at_key = entry->value.is_map() || entry->value.kind == Section::Kind::null;
  return {*list_, &entry->value, at_key ? entry->place : entry->value.place, full_key(key)};
}

Problems Problems::item(size_t index, const Section& section) const {
  return {*list_, &section, section.place, fmt::format("{}[{}]", path_, index)};
}

void Problems::add(const std::string& key, const std::string& what) {
  if (key.empty()) {
    list_->add(place_, path_, what);
  } else {
    inside(key).add("", what);
  }
}

void Problems::add_at(const Place& place, const std::string& key, const std::string& what) {
  list_->add(place, full_key(key), what);
}

}  // namespace tessera
