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

struct Unreadable {
  Place place;
  std::string what;
};

/// Builds one document's tree. A map under construction waits for a key, then for its value.
class Builder : public YAML::EventHandler {
 public:
  Builder(std::string_view text, Place origin, ProblemList& problems)
      : text_(text), origin_(std::move(origin)), problems_(problems) {}
  Section root;

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override { add(Section(), mark, anchor); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    const bool text = tag == "!" || tag == "tag:yaml.org,2002:str";
    if (is_open_quote(static_cast<size_t>(mark.pos)))
      throw Unreadable{place(mark), "this quote is not closed"};
    add(Section::scalar(value, text), mark, anchor);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) throw Unreadable{place(mark), "this alias stands inside what it stands for"};
    const auto& [section, size] = found->second;
    count(size, mark);
    finish(section, place(mark));
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

  void count(size_t nodes, const YAML::Mark& mark) {
    num_nodes_ += nodes;
    if (num_nodes_ > most_nodes) throw Unreadable{place(mark), "the aliases expand to too many values"};
  }

  /// yaml-cpp ends a quote that is never closed at the end of the file, without a word.
  bool is_open_quote(size_t begin) const {
    const char quote = begin < text_.size() ? text_[begin] : ' ';
    if (quote != '"' && quote != '\'') return false;
    for (size_t i = begin + 1; i < text_.size(); ++i) {
      if (quote == '"' && text_[i] == '\\') {
        ++i;
      } else if (text_[i] == quote) {
        return false;
      }
    }
    return true;
  }

  void add(Section section, const YAML::Mark& mark, YAML::anchor_t anchor) {
    count(1, mark);
    section.place = place(mark);
    if (anchor) anchors_[anchor] = {section, 1};
    const Place where = section.place;
    finish(std::move(section), where);
  }

  void open(Section section, const YAML::Mark& mark, YAML::anchor_t anchor) {
    count(1, mark);
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
    finish(std::move(done.section), where);
  }

  /// Hands a finished node to the list or map that is open, or makes it the root.
  void finish(Section section, const Place& where) {
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
        if (level.has_key && !level.key.empty()) text += (text.empty() ? "" : ".") + level.key;
      } else {
        text += fmt::format("[{}]", level.section.items.size());
      }
    }
    return text;
  }

  std::string_view text_;
  Place origin_;
  ProblemList& problems_;
  std::vector<Open> open_;
  std::map<YAML::anchor_t, std::pair<Section, size_t>> anchors_;
  size_t num_nodes_ = 0;
};

/// What makes a byte no part of a text in UTF-8, or "". yaml-cpp lets foreign bytes pass and takes some
/// control characters for the end of the file.
std::string foreign(std::string_view text, size_t i) {
  const auto c = static_cast<unsigned char>(text[i]);
  if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7f) {
    return fmt::format("it has the control character 0x{:02x}", c);
  }
  const auto continues = [&](size_t at) { return at < text.size() && (text[at] & 0xC0) == 0x80; };
  const size_t more = c < 0x80 ? 0 : c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1;
  bool whole = (c & 0xC0) != 0x80 || (i > 0 && (text[i - 1] & 0x80));
  for (size_t k = 1; k <= more && (c & 0xC0) != 0x80; ++k) whole = whole && continues(i + k);
  return whole && c < 0xF8 ? "" : fmt::format("the byte 0x{:02x} is not UTF-8", c);
}

bool is_text(std::string_view text, const Place& origin, ProblemList& problems) {
  for (size_t i = 0, line = 1, begin = 0; i < text.size(); ++i) {
    const std::string why = foreign(text, i);
    if (!why.empty()) {
      const Place here{origin.origin, static_cast<int>(line), static_cast<int>(i - begin + 1), origin.layer};
      problems.add(origin.line == 0 ? origin : here, "", "not a YAML text: " + why);
      return false;
    }
    if (text[i] == '\n') {
      ++line;
      begin = i + 1;
    }
  }
  return true;
}

/// yaml-cpp's words for the commonest mistakes, in ours.
std::string explain(const YAML::Exception& error, std::string_view text) {
  size_t begin = 0;
  for (int line = 0; line < error.mark.line && begin != std::string::npos; ++line) {
    begin = text.find('\n', begin);
    if (begin != std::string::npos) ++begin;
  }
  if (begin != std::string::npos) {
    const size_t content = text.find_first_not_of(" \t", begin);
    if (text.substr(begin, content - begin).find('\t') != std::string::npos) {
      return "this line is indented with a tab; valid: spaces";
    }
  }
  static const std::map<std::string, std::string> words = {
      {YAML::ErrorMsg::END_OF_MAP_FLOW, "a '{' is not closed"},
      {YAML::ErrorMsg::END_OF_SEQ_FLOW, "a '[' is not closed"},
      {YAML::ErrorMsg::END_OF_MAP, "this line does not fit the section's indentation"},
      {YAML::ErrorMsg::MAP_VALUE, "there is a ':' where none may be; texts with ': ' need quotes"},
      {YAML::ErrorMsg::UNKNOWN_ANCHOR, "this alias (*name) has no anchor (&name) before it"},
      {YAML::ErrorMsg::UNKNOWN_TOKEN, "a text cannot begin with this character; it needs quotes"},
      {YAML::ErrorMsg::BAD_FILE, "the lists or sections are nested too deeply"}};
  const auto found = words.find(error.msg);
  return found == words.end() ? error.msg : found->second;
}

}  // namespace

std::optional<Section> parse_yaml(std::string_view text, const Place& origin, ProblemList& problems) {
  Place place = origin;
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // a byte order mark
  if (!is_text(text, origin, problems)) return std::nullopt;
  std::istringstream stream{std::string(text)};
  Builder builder(text, origin, problems);
  try {
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) return Section();
    Builder second(text, origin, problems);
    if (parser.HandleNextDocument(second))
      problems.add(second.root.place, "", "a recipe is one YAML document, but a second begins here");
  } catch (const YAML::Exception& error) {
    if (origin.line != 0 && !error.mark.is_null()) {
      place = {origin.origin, error.mark.line + 1, error.mark.column + 1, origin.layer};
    }
    problems.add(place, "", "not valid YAML: " + explain(error, text));
    return std::nullopt;
  } catch (const Unreadable& error) {
    problems.add(error.place, "", "not valid YAML: " + error.what);
    return std::nullopt;
  }
  return std::move(builder.root);
}

}  // namespace tessera
