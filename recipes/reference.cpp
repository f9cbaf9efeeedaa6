#include <fmt/format.h>

#include "recipes/recipe.h"

namespace tessera {
namespace {

/// Bars would end a table's cell.
std::string cell(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '|' ? "\\|" : std::string(1, c);
  return out;
}

std::string table(const std::vector<FieldRow>& rows) {
  if (rows.empty()) return "No further keys.\n";
  std::string text = "| key | valid | default | meaning |\n|---|---|---|---|\n";
  for (const auto& row : rows) {
    text += fmt::format("| `{}` | {} | {} | {} |\n", row.key, cell(row.valid),
                        row.rules.required ? "required" : "`" + cell(row.standard) + "`", cell(row.docs));
  }
  return text;
}

std::string choices(const std::string& section, const ChoiceTable& from) {
  std::string text =
      fmt::format("The key `{}` (required) decides which other keys there are.{}\n", from.key,
                  from.standard.empty() ? "" : " Without the section: `" + from.standard + "`.");
  for (const auto& entry : from.entries) {
    text += fmt::format("\n### `{}: {{{}: {}}}`\n\n{}\n\n{}", section, from.key, entry.name, entry.summary,
                        table(entry.options->list()));
  }
  return text;
}

}  // namespace

std::string reference(const Catalog& catalog) {
  std::string text =
      "# Recipes: every section and key\n\n"
      "<!-- Made by `tessera recipes reference > docs/recipes.md`; a test checks that it is current. -->\n\n"
      "A recipe is a YAML file of the sections below. Besides them, `include: other.yaml` (or a list; "
      "relative to the\n"
      "including file) puts the recipe on top of others: sections merge key by key, the later value wins, "
      "lists are\n"
      "replaced, and `null` takes an optional value back. On the command line, `section.key=value` wins over "
      "all files.\n"
      "Numbers are decimal (`512`, `5e-4`), truth values are `true` and `false`, paths are relative to the "
      "working folder.\n";
  Recipe recipe;
  FieldLister lister;
  fields(recipe, catalog, lister);
  for (const auto& row : lister.rows) {
    text += fmt::format("\n## {}: {}\n\n", row.key, row.docs);
    text += row.rules.table ? choices(row.key, *row.rules.table) : table(row.inside);
  }
  return text;
}

}  // namespace tessera
