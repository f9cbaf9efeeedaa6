// The one file that knows yaml-cpp: its parser's events become Sections.
#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <map>
#include <sstream>

#include "recipes/section.h"

namespace tessera {
namespace {

// Aliases of aliases grow exponentially; no recipe comes near this.
constexpr size_t most_nodes = 100'000;

struct TooManyNodes {};

/// Builds one document's tree. A map under construction waits for a key, then for its value.
class Builder : public YAML::EventHandler {
 public:
  Builder(Place origin, ProblemList& problems) : origin_(std::move(origin)), problems_(problems) {}
  Section root;

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(Section(), mark, anchor); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    const bool text = tag == "!" || tag == "tag:yaml.org,2002:str";
    add(Section::scalar(value, text), mark, anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto& [section, size] = anchors_.at(anchor);
    num_nodes_ += size;
    if (num_nodes_ > most_nodes) throw TooManyNodes();
    finish(section, place(mark), 0);
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(Section::list({}), mark, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(Section::map(), mark, anchor);
  }
  void OnMapEnd() override {
    merge_defaults(open_.back().section);
    close();
  }

 private:
  struct Open {
    Section section;
    YAML::anchor_t anchor = 0;
    size_t first_node = 0;
    bool has_key = false, skip = false;  // skip: the pending value belongs to a key that was refused
    std::string key;
    Place key_place;
  };

  Place place(const YAML::Mark& mark) const {
    if (origin_.line == 0) return origin_;  // the command line
    return {origin_.origin, mark.line + 1, mark.column + 1, origin_.layer};
  }

  void add(Section section, const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (++num_nodes_ > most_nodes) throw TooManyNodes();
    section.place = place(mark);
    if (anchor) anchors_[anchor] = {section, 1};
    const Place where = section.place;
    finish(std::move(section), where, anchor);
  }

  void open(Section section, const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (++num_nodes_ > most_nodes) throw TooManyNodes();
    section.place = place(mark);
    Open state;
    state.section = std::move(section);
    state.anchor = anchor;
    state.first_node = num_nodes_;
    open_.push_back(std::move(state));
  }

  void close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    if (done.anchor) anchors_[done.anchor] = {done.section, num_nodes_ - done.first_node + 1};
    const Place where = done.section.place;
    finish(std::move(done.section), where, done.anchor);
  }

  /// Hands a finished node to the list or map that is open, or makes it the root.
  void finish(Section section, const Place& where, YAML::anchor_t) {
    if (open_.empty()) {
      root = std::move(section);
      return;
    }
    Open& top = open_.back();
    if (!top.section.is_map()) {
      top.section.items.push_back(std::move(section));
    } else if (!top.has_key) {
      take_key(top, section, where);
    } else {
      top.has_key = false;
      if (!top.skip) top.section.entries.push_back({top.key, top.key_place, std::move(section)});
    }
  }

  void take_key(Open& top, const Section& section, const Place& where) {
    top.has_key = true;
    top.key = section.text;
    top.key_place = where;
    top.skip = false;
    const SectionEntry* first = top.section.find(top.key);
    if (section.kind != Section::Kind::scalar) {
      problems_.add(where, path(), "a key must be a name, but this is " + describe(section));
      top.skip = true;
    } else if (first) {
      const std::string line = first->place.line ? fmt::format(", first in line {}", first->place.line) : "";
      problems_.add(where, path(), "this key is given twice" + line);
      top.skip = true;
    }
  }

  /// YAML 1.1's merge key: `<<: *defaults` gives the keys that the map does not have itself.
  void merge_defaults(Section& map) {
    const SectionEntry* entry = map.find("<<");
    if (!entry) return;
    const Section value = entry->value;
    const Place where = entry->place;
    std::erase_if(map.entries, [](const SectionEntry& e) { return e.key == "<<"; });
    const std::vector<Section> sources = value.kind == Section::Kind::list ? value.items : std::vector{value};
    for (const auto& source : sources) {
      if (!source.is_map())
        problems_.add(where, path(), "<< takes a section, but this is " + describe(source));
      for (const auto& item : source.entries) {
        if (!map.find(item.key)) map.entries.push_back(item);
      }
    }
  }

  /// The dotted key of what is being read, for messages.
  std::string path() const {
    std::string text;
    for (const Open& level : open_) {
      if (level.section.is_map()) {
        if (level.has_key) text += (text.empty() ? "" : ".") + level.key;
      } else {
        text += fmt::format("[{}]", level.section.items.size());
      }
    }
    return text;
  }

  Place origin_;
  ProblemList& problems_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, std::pair<Section, size_t>> anchors_;
  size_t num_nodes_ = 0;
};

/// yaml-cpp takes some control characters for the end of the file.
bool has_control_characters(std::string_view text, Place& place, ProblemList& problems) {
  for (size_t i = 0, line = 1, begin = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '\n') {
      ++line;
      begin = i + 1;
    } else if ((c < 0x20 && c != '\t' && c != '\r') || c == 0x7f) {
      if (place.line != 0)
        place = {place.origin, static_cast<int>(line), static_cast<int>(i - begin + 1), place.layer};
      problems.add(place, "", fmt::format("not a YAML text: it has the control character 0x{:02x}", c));
      return true;
    }
  }
  return false;
}

}  // namespace

std::optional<Section> parse_yaml(std::string_view text, const Place& origin, ProblemList& problems) {
  Place place = origin;
  if (has_control_characters(text, place, problems)) return std::nullopt;
  std::istringstream stream{std::string(text)};
  Builder builder(origin, problems);
  try {
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) return Section();
    Builder second(origin, problems);
    if (parser.HandleNextDocument(second))
      problems.add(second.root.place, "", "a recipe is one YAML document, but a second begins here");
  } catch (const YAML::Exception& error) {
    if (origin.line != 0 && !error.mark.is_null()) {
      place = {origin.origin, error.mark.line + 1, error.mark.column + 1, origin.layer};
    }
    problems.add(place, "", "not valid YAML: " + error.msg);
    return std::nullopt;
  } catch (const TooManyNodes&) {
    problems.add(place, "", "the aliases expand to too many values");
    return std::nullopt;
  }
  return std::move(builder.root);
}

}  // namespace tessera
