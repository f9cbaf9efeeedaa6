#include "recipes/recipe.h"

#include <fmt/format.h>

#include <algorithm>

#include "recipes/layers.h"
#include "recipes/parallel_checks.h"

namespace tessera {
namespace {

void check_together(const Recipe& recipe, const Catalog& catalog, Problems& problems) {
  const auto positions = recipe.model.integer("max_positions");
  if (positions && recipe.data.sequence_length > *positions) {
    problems.add("data.sequence_length",
                 fmt::format("{} is longer than the model's max_positions {}; valid: at most {}, or a larger "
                             "model.max_positions",
                             recipe.data.sequence_length, *positions, *positions));
  }
  check_parallel(recipe, problems);
  for (const auto& check : catalog.checks) check(recipe, problems);
}

void override_with(const std::vector<std::string>& overrides, Section& root, ProblemList& list) {
  for (const auto& assignment : overrides) apply_override(root, assignment, list);
}

/// Puts the model of the folder that `model.from` names below the keys that the recipe gives itself.
void start_from(Section& root, const Catalog& catalog, ProblemList& list) {
  SectionEntry* model = root.find("model");
  const SectionEntry* from = model ? model->value.find("from") : nullptr;
  if (!from || from->value.kind != Section::Kind::scalar || !catalog.model_in) return;
  const SectionEntry* family = model->value.find(catalog.model.key);
  try {
    const Choice start = catalog.model_in(from->value.text);
    if (family && family->value.text != start.name()) {
      list.add(family->value.place, "model." + catalog.model.key,
               fmt::format("{}, but {} holds a model of the family {}; valid: {}, or nothing",
                           describe(family->value), from->value.text, start.name(), start.name()));
      return;
    }
    Rules rules;
    rules.table = &catalog.model;
    Section below = Value<Choice>::write(start, rules);
    std::erase_if(below.entries, [](const SectionEntry& entry) { return entry.key == "from"; });
    below.place = model->value.place;
    merge(below, model->value);
    model->value = std::move(below);
  } catch (const Error& error) {
    list.add(from->value.place, "model.from", error.what());
  }
}

Recipe read_layers(std::optional<Section> root, const std::string& origin, const Catalog& catalog,
                   ProblemList& list) {
  if (!root) {
    list.throw_if_any();
    throw std::logic_error("a recipe was not read, but no problem was reported");
  }
  Recipe recipe;
  recipe.origin = origin;
  recipe.source = std::make_shared<const Section>(std::move(*root));
  Problems problems(list, recipe.source.get(), recipe.source->place, "");
  FieldReader reader(*recipe.source, problems);
  fields(recipe, catalog, reader);
  reader.finish();
  if (list.size() == 0) check_together(recipe, catalog, problems);
  list.throw_if_any();
  return recipe;
}

struct Flat {
  std::string key, value;
};

std::vector<Flat> flatten(const Recipe& recipe, const Catalog& catalog) {
  Recipe copy = recipe;
  FieldWriter writer;
  fields(copy, catalog, writer);
  std::vector<Flat> all;
  for (const auto& section : writer.section.entries) {
    for (const auto& entry : section.value.entries)
      all.push_back({section.key + "." + entry.key, to_line(entry.value)});
  }
  return all;
}

const std::string* find(const std::vector<Flat>& all, const std::string& key) {
  const auto found = std::find_if(all.begin(), all.end(), [&](const Flat& flat) { return flat.key == key; });
  return found == all.end() ? nullptr : &found->value;
}

Rules rules_of(const std::vector<FieldRow>& rows, const std::string& key) {
  const auto row = std::find_if(rows.begin(), rows.end(), [&](const FieldRow& r) { return r.key == key; });
  return row == rows.end() ? Rules() : row->rules;
}

/// May a key differ when a run resumes? The fixed sections and the model say it key by key. A schedule may
/// change wholly, an optimizer in its figures: its state stays what it is. An objective has no state, but is
/// what a run is about.
Rules rules_of(const Recipe& recipe, const Catalog& catalog, const std::string& key) {
  const size_t dot = key.find('.');
  const std::string section = key.substr(0, dot), name = key.substr(dot + 1);
  if (section == "schedule" || (section == "optimizer" && name != catalog.optimizer.key))
    return make_rules(changeable);
  if (section == "objective") return make_rules(new_phase);
  if (section == "model" || section == "adapt") {
    const ChoiceEntry* entry = section == "model" ? catalog.model.find(recipe.model.name())
                                                  : catalog.adapt.find(recipe.adapt.name());
    return entry ? rules_of(entry->options->list(), name) : Rules();
  }
  Recipe copy = recipe;
  FieldLister lister;
  fields(copy, catalog, lister);
  const auto row =
      std::find_if(lister.rows.begin(), lister.rows.end(), [&](const auto& r) { return r.key == section; });
  return row == lister.rows.end() ? Rules() : rules_of(row->inside, name);
}

}  // namespace

Error Recipe::error(const std::string& key, const std::string& what) const {
  ProblemList list;
  Problems(list, source.get(), source ? source->place : Place{origin}, "").add(key, what);
  return Error(list.text());
}

Recipe read_recipe(const std::string& path, const std::vector<std::string>& overrides,
                   const Catalog& catalog) {
  ProblemList problems;
  std::optional<Section> root = load_layers(path, problems);
  if (root) {
    override_with(overrides, *root, problems);
    start_from(*root, catalog, problems);
    problems.throw_if_any();  // the rest of a model that is not known would seem to be missing
  }
  return read_layers(std::move(root), path, catalog, problems);
}

Recipe read_recipe_text(std::string_view text, const std::string& origin,
                        const std::vector<std::string>& overrides, const Catalog& catalog) {
  ProblemList problems;
  std::optional<Section> root = load_layers_text(text, origin, problems);
  if (root) override_with(overrides, *root, problems);
  return read_layers(std::move(root), origin, catalog, problems);
}

std::string dump(const Recipe& recipe, const Catalog& catalog) {
  Recipe copy = recipe;
  FieldWriter writer;
  fields(copy, catalog, writer);
  return to_yaml(writer.section);
}

std::vector<Difference> differences(const Recipe& before, const Recipe& after, const Catalog& catalog) {
  const auto old_values = flatten(before, catalog), new_values = flatten(after, catalog);
  std::vector<Difference> found;
  for (const auto& [key, value] : old_values) {
    const std::string* now = find(new_values, key);
    if (now && *now == value) continue;
    const Rules rules = rules_of(before, catalog, key);
    found.push_back({key, value, now ? *now : "", rules.changeable, rules.changeable || rules.new_phase});
  }
  for (const auto& [key, value] : new_values) {
    if (find(old_values, key)) continue;
    const Rules rules = rules_of(after, catalog, key);
    found.push_back({key, "", value, rules.changeable, rules.changeable || rules.new_phase});
  }
  return found;
}

BatchArithmetic batch_arithmetic(const Recipe& recipe, int num_ranks) {
  const int64_t global = recipe.train.global_batch, micro = recipe.train.micro_batch;
  const int64_t together = ranks_per_sample(recipe.parallel), ranks = num_ranks / together;
  const int64_t at_once = ranks * micro;
  if (global % at_once == 0) return {global, micro, ranks, global / at_once};
  const int64_t below = global / at_once * at_once;
  std::string valid =
      fmt::format("global_batch {}{}", below ? fmt::format("{} or ", below) : "", below + at_once);
  if (global % ranks == 0) {
    valid += fmt::format(", or micro_batch {}", divisor_up_to(global / ranks, micro));
  }
  int64_t fewer = ranks;  // micro_batch divides global_batch: one rank always fits
  while (global / micro % fewer != 0) --fewer;
  valid += fmt::format(", or {} rank{}", fewer * together, fewer * together == 1 ? "" : "s");
  const std::string who =
      together == 1 ? fmt::format("{} ranks", ranks) : fmt::format("{} groups of {} ranks", ranks, together);
  throw recipe.error("train.global_batch",
                     fmt::format("{} is not divisible by {} x micro_batch {} = {}; valid: {}", global, who,
                                 micro, at_once, valid));
}

}  // namespace tessera
