#include "recipes/layers.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "recipes/error.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr std::uintmax_t most_bytes = 1 << 20;

/// What lies in the file's folder, to help with a name that is not there or is a folder.
std::vector<std::string> recipes_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder.empty() ? "." : folder, ignored)) {
    if (entry.path().extension() == ".yaml") names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// The file's text, or in `problem` why there is none.
std::string read_text(const fs::path& path, std::string& problem) {
  std::error_code status;
  if (fs::is_directory(path, status)) {
    const auto names = recipes_in(path);
    problem = "is a folder" +
              (names.empty() ? "; valid: a recipe file" : "; valid: one of its files " + join(names));
    return {};
  }
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    problem = fmt::format("cannot be read: {}", std::strerror(errno));
    const std::string near = nearest(path.filename().string(), recipes_in(path.parent_path()));
    if (!near.empty()) problem += "; did you mean '" + (path.parent_path() / near).string() + "'?";
    return {};
  }
  if (fs::is_regular_file(path, status) && fs::file_size(path, status) > most_bytes) {
    problem = "is larger than 1 MiB: not a recipe";
    return {};
  }
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void set_layer(Section& section, int layer) {
  section.place.layer = layer;
  for (auto& item : section.items) set_layer(item, layer);
  for (auto& entry : section.entries) {
    entry.place.layer = layer;
    set_layer(entry.value, layer);
  }
}

class Loader {
 public:
  explicit Loader(ProblemList& problems) : problems_(problems) {}

  /// `asked` is where the file was asked for: an include, or the command line (line 0, no origin).
  std::optional<Section> file(const fs::path& path, const Place& asked) {
    std::string problem;
    const std::string text = read_text(path, problem);
    if (!problem.empty()) {
      if (asked.line == 0) {
        problems_.add({path.string()}, "", problem);
      } else {
        problems_.add(asked, "include", "'" + path.string() + "' " + problem);
      }
      return std::nullopt;
    }
    return this->text(text, path.string(), path);
  }

  std::optional<Section> text(std::string_view text, const std::string& origin, const fs::path& path) {
    const Place top{origin, 1, 1};
    std::optional<Section> own = parse_yaml(text, top, problems_);
    if (!own) return std::nullopt;
    if (!own->is_map()) {
      const std::string is = own->kind == Section::Kind::null ? "it is empty" : "this is " + describe(*own);
      problems_.add(top, "", "a recipe is made of sections such as 'train:', but " + is);
      return std::nullopt;
    }
    own->place = top;
    return with_includes(std::move(*own), path);
  }

 private:
  std::optional<Section> with_includes(Section own, const fs::path& path) {
    const SectionEntry* include = own.find("include");
    if (!include) return layered(std::move(own));
    const std::vector<Section> names =
        include->value.kind == Section::Kind::list ? include->value.items : std::vector{include->value};
    std::erase_if(own.entries, [](const SectionEntry& entry) { return entry.key == "include"; });

    open_.push_back(fs::weakly_canonical(path));
    Section all = Section::map();
    bool good = true;
    for (const Section& name : names) {
      std::optional<Section> base = included(name, path);
      good = good && base;
      if (base) merge(all, *base);
    }
    open_.pop_back();
    if (!good) return std::nullopt;
    const Place top = own.place;
    merge(all, layered(std::move(own)));
    all.place = top;
    return all;
  }

  std::optional<Section> included(const Section& name, const fs::path& path) {
    if (name.kind != Section::Kind::scalar) {
      problems_.add(name.place, "include",
                    describe(name) + " is not a file's name; valid: path, or list of paths");
      return std::nullopt;
    }
    const fs::path target = (path.parent_path() / name.text).lexically_normal();
    const auto begin = std::find(open_.begin(), open_.end(), fs::weakly_canonical(target));
    if (begin != open_.end()) {
      std::vector<std::string> circle;
      for (auto file = begin; file != open_.end(); ++file) circle.push_back(file->filename().string());
      circle.push_back(target.filename().string());
      problems_.add(name.place, "include", "these files include each other: " + join(circle, " -> "));
      return std::nullopt;
    }
    return file(target, name.place);
  }

  Section layered(Section section) {
    set_layer(section, ++layer_);
    return section;
  }

  ProblemList& problems_;
  std::vector<fs::path> open_;  // the files that wait for what they include
  int layer_ = 0;
};

}  // namespace

std::optional<Section> load_layers(const std::string& path, ProblemList& problems) {
  return Loader(problems).file(path, {});
}

std::optional<Section> load_layers_text(std::string_view text, const std::string& origin,
                                        ProblemList& problems) {
  return Loader(problems).text(text, origin, "");
}

void apply_override(Section& root, const std::string& assignment, ProblemList& problems) {
  const Place place{"command line " + assignment, 0, 0, std::numeric_limits<int>::max()};
  const size_t equals = assignment.find('=');
  const std::string key = assignment.substr(0, equals);
  const bool bad_key =
      key.empty() || key.front() == '.' || key.back() == '.' || key.find("..") != std::string::npos;
  if (equals == std::string::npos || bad_key) {
    problems.add(place, "", "not an override; valid: section.key=value, such as train.steps=100");
    return;
  }
  std::optional<Section> value = parse_yaml(std::string_view(assignment).substr(equals + 1), place, problems);
  if (!value) return;
  value->place = place;
  // Wrap the value in its keys, innermost first, and merge.
  Section wrapped = std::move(*value);
  for (size_t end = key.size();;) {
    const size_t dot = key.rfind('.', end - 1);
    Section outer = Section::map();
    outer.place = place;
    outer.set(
        key.substr(dot == std::string::npos ? 0 : dot + 1, end - (dot == std::string::npos ? 0 : dot + 1)),
        std::move(wrapped));
    wrapped = std::move(outer);
    if (dot == std::string::npos) break;
    end = dot;
  }
  const Place top = root.place;
  merge(root, wrapped);
  root.place = top;
}

}  // namespace tessera
