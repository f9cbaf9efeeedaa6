#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "datasets/strict_json.h"
#include "datasets/tokenizer/spec.h"
#include "recipes/error.h"

namespace tessera {
namespace {

using Json = TokenizerSpec::Json;
constexpr int max_depth = 32;  // real files need 6
constexpr size_t max_object =
    1 << 16;  // keys of an object other than the vocabulary (ordered_json searches linearly)

/// Builds the small sections as a tree, and takes the vocabulary and the merges, which are large, straight
/// from the parser. Unlike a tree, it also sees duplicate keys.
class Reader : public nlohmann::json_sax<Json> {
 public:
  Reader(TokenizerSpec& spec, Json& root) : spec_(spec), root_(root) {}

  bool null() override { return value(nullptr); }
  bool boolean(bool x) override { return value(x); }
  bool number_integer(number_integer_t x) override { return integer(x); }
  bool number_unsigned(number_unsigned_t x) override {
    return integer(x > INT64_MAX ? INT64_MAX : static_cast<int64_t>(x));
  }
  bool number_float(number_float_t x, const string_t&) override { return value(x); }
  bool string(string_t& x) override {
    if (place_ == Place::merges && depth_ <= 4) return merge_part(x);
    return value(x);
  }
  bool binary(binary_t&) override { return false; }
  bool start_object(size_t) override { return open(Json::object()); }
  bool end_object() override { return close(); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override;
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& e) override {
    std::string what = e.what();
    what = what.substr(what.find("] ") == std::string::npos ? 0 : what.find("] ") + 2);
    constexpr size_t longest = 300;  // it ends with what was read last
    if (what.size() > longest) what = what.substr(0, longest) + "…";
    throw Error(fmt::format("{}: not valid JSON: {}", spec_.origin, what));
  }

 private:
  enum class Place { tree, vocab, merges };

  [[noreturn]] void fail(const std::string& what) const {
    std::string where;
    for (const auto& name : path_) where += (where.empty() ? "" : ".") + name;
    throw Error(fmt::format("{}: {}: {}", spec_.origin, where.empty() ? "top level" : where, what));
  }
  bool value(Json x);
  bool integer(int64_t x) {
    if (place_ != Place::vocab) return value(x);
    spec_.vocab.emplace_back(std::move(token_), x);
    return true;
  }
  bool open(Json container);
  bool close();
  bool merge_part(std::string& x);
  Json& add(Json x);

  TokenizerSpec& spec_;
  Json& root_;
  std::vector<Json*> stack_;
  std::vector<std::string> path_;  // one key per open object
  std::vector<std::string> pair_;
  std::string token_;
  Place place_ = Place::tree;
  int depth_ = 0;  // of open containers
};

bool Reader::key(string_t& name) {
  if (place_ == Place::vocab) {
    token_ = std::move(name);
    return true;
  }
  const Json& object = *stack_.back();
  if (object.contains(name)) fail(fmt::format("the key '{}' occurs twice", name));
  if (object.size() >= max_object) fail("too many keys");
  path_.back() = name;
  return true;
}

Json& Reader::add(Json x) {
  if (stack_.empty()) {
    root_ = std::move(x);
    return root_;
  }
  Json& parent = *stack_.back();
  if (parent.is_array()) {
    parent.push_back(std::move(x));
    return parent.back();
  }
  return parent[path_.back()] = std::move(x);
}

bool Reader::value(Json x) {
  if (place_ == Place::vocab) fail(fmt::format("the id of token '{}' is not a whole number", token_));
  if (place_ == Place::merges) fail("every merge must be a string \"a b\" or a pair [\"a\", \"b\"]");
  add(std::move(x));
  return true;
}

bool Reader::open(Json container) {
  ++depth_;
  if (place_ == Place::merges && depth_ == 4 && container.is_array()) {
    pair_.clear();
    return true;
  }
  if (place_ != Place::tree) return value(nullptr);
  if (depth_ > max_depth) fail("nested too deeply");
  const bool in_model = depth_ == 3 && path_.size() == 2 && path_[0] == "model";
  if (in_model && path_[1] == "vocab") {
    if (!container.is_object())
      fail("must be an object that maps tokens to ids (only WordPiece and BPE are supported)");
    place_ = Place::vocab;
  } else if (in_model && path_[1] == "merges") {
    if (!container.is_array()) fail("must be a list of merges");
    place_ = Place::merges;
  }
  const bool object = container.is_object();
  stack_.push_back(&add(std::move(container)));
  if (object) path_.emplace_back();
  return true;
}

bool Reader::close() {
  --depth_;
  if (place_ == Place::merges && depth_ == 3) {
    if (pair_.size() != 2) fail("a merge must have two parts");
    spec_.merges.emplace_back(std::move(pair_[0]), std::move(pair_[1]));
    return true;
  }
  place_ = Place::tree;
  if (stack_.back()->is_object()) path_.pop_back();
  stack_.pop_back();
  return true;
}

bool Reader::merge_part(std::string& x) {
  if (depth_ == 4) {
    if (pair_.size() == 2) fail("a merge must have two parts");
    pair_.push_back(std::move(x));
    return true;
  }
  if (x.starts_with("#version")) return true;  // the first line of merges.txt
  const size_t space = x.find(' ');
  if (space == std::string::npos || x.find(' ', space + 1) != std::string::npos) {
    fail(fmt::format("the merge '{}' is not of the form \"a b\"", x));
  }
  spec_.merges.emplace_back(x.substr(0, space), x.substr(space + 1));
  return true;
}

AddedToken read_added_token(const Json& entry, const std::string& where) {
  if (!entry.is_object()) throw Error(where + ": must be an object with id and content");
  const auto id = entry.find("id");
  if (id == entry.end() || !id->is_number_integer()) throw Error(where + ".id: must be a whole number");
  AddedToken token;
  const int64_t number =
      id->is_number_unsigned() && id->get<uint64_t>() > INT32_MAX ? -1 : id->get<int64_t>();
  if (number < 0 || number > INT32_MAX) throw Error(where + ".id: out of range: " + shown(*id));
  token.id = static_cast<int32_t>(number);
  token.content = text_of(entry, "content", "", where);
  if (token.content.empty()) throw Error(where + ".content: must be a text that is not empty");
  token.single_word = bool_of(entry, "single_word", false, where);
  token.lstrip = bool_of(entry, "lstrip", false, where);
  token.rstrip = bool_of(entry, "rstrip", false, where);
  token.special = bool_of(entry, "special", false, where);
  token.normalized = bool_of(entry, "normalized", !token.special, where);
  return token;
}

void read_added_tokens(TokenizerSpec& spec, const Json& list) {
  if (list.is_null()) return;
  if (!list.is_array()) throw Error(spec.origin + ": added_tokens: must be a list");
  for (size_t i = 0; i < list.size(); ++i) {
    spec.added_tokens.push_back(
        read_added_token(list[i], fmt::format("{}: added_tokens[{}]", spec.origin, i)));
  }
}

}  // namespace

bool bool_of(const Json& section, const char* key, bool fallback, const std::string& where) {
  const auto found = section.find(key);
  if (found == section.end() || found->is_null()) return fallback;
  if (!found->is_boolean())
    throw Error(fmt::format("{}.{}: must be true or false, not {}", where, key, shown(*found)));
  return found->get<bool>();
}

std::string text_of(const Json& section, const char* key, const std::string& fallback,
                    const std::string& where) {
  const auto found = section.find(key);
  if (found == section.end() || found->is_null()) return fallback;
  if (!found->is_string())
    throw Error(fmt::format("{}.{}: must be a text, not {}", where, key, shown(*found)));
  return found->get<std::string>();
}

std::string type_of(const TokenizerSpec& spec, const char* section,
                    const std::vector<std::string>& supported) {
  const Json& value = std::string_view(section) == "model" ? spec.model : spec.sections.at(section);
  if (value.is_null()) return "";
  const std::string where = spec.origin + ": " + section;
  if (!value.is_object()) throw Error(where + ": must be an object or null");
  std::string type = text_of(value, "type", "", where);
  if (std::find(supported.begin(), supported.end(), type) != supported.end()) return type;
  throw Error(
      fmt::format("{}: type '{}' is not supported here{}", where, type, valid_names(type, supported)));
}

TokenizerSpec read_spec(std::string_view json, const std::string& origin) {
  TokenizerSpec spec;
  spec.origin = origin;
  Json root;
  Reader reader(spec, root);
  Json::sax_parse(json, &reader);
  if (!root.is_object()) throw Error(origin + ": a tokenizer.json must be an object");
  if (!root.contains("model") || !root["model"].is_object()) throw Error(origin + ": model: missing");
  if (const std::string version = text_of(root, "version", "1.0", origin + ": top level"); version != "1.0") {
    throw Error(fmt::format("{}: version '{}' is not supported; valid: 1.0", origin, version));
  }
  const bool has_merges = root["model"].contains("merges");
  spec.model = std::move(root["model"]);
  if (!spec.model.contains("type"))
    spec.model["type"] = has_merges ? "BPE" : "WordPiece";  // files of old versions
  spec.model.erase("vocab");
  spec.model.erase("merges");
  if (root.contains("added_tokens")) read_added_tokens(spec, root["added_tokens"]);
  for (const char* key :
       {"truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"}) {
    spec.sections[key] = root.contains(key) ? std::move(root[key]) : Json();
  }
  return spec;
}

std::string write_spec(const TokenizerSpec& spec) {
  const auto quoted = [](const std::string& text) { return Json(text).dump(); };
  const auto section = [&](const char* key) {
    return fmt::format("\"{}\":{}", key, spec.sections.at(key).dump());
  };
  std::string out =
      "{\"version\":\"1.0\"," + section("truncation") + "," + section("padding") + ",\"added_tokens\":[";
  const char* separator = "";
  for (const AddedToken& t : spec.added_tokens) {
    const Json entry = {{"id", t.id},          {"content", t.content}, {"single_word", t.single_word},
                        {"lstrip", t.lstrip},  {"rstrip", t.rstrip},   {"normalized", t.normalized},
                        {"special", t.special}};
    out += separator + entry.dump();
    separator = ",";
  }
  out += "]";
  for (const char* key : {"normalizer", "pre_tokenizer", "post_processor", "decoder"})
    out += "," + section(key);
  std::string model = spec.model.dump();
  model.pop_back();
  out += ",\"model\":" + model + ",\"vocab\":{";
  separator = "";
  for (const auto& [token, id] : spec.vocab) {
    out += separator + quoted(token) + ":" + std::to_string(id);
    separator = ",";
  }
  out += "}";
  if (spec.model.value("type", "") == "BPE") {
    out += ",\"merges\":[";
    separator = "";
    for (const auto& [a, b] : spec.merges) {
      out += separator + ("[" + quoted(a)) + "," + quoted(b) + "]";
      separator = ",";
    }
    out += "]";
  }
  return out + "}}";
}

std::shared_ptr<const Tokenizer> Tokenizer::parse(std::string_view json, const std::string& origin) {
  return make_tokenizer(read_spec(json, origin));
}

std::shared_ptr<const Tokenizer> Tokenizer::load(const std::string& path) {
  namespace fs = std::filesystem;
  const std::string file = fs::is_directory(path) ? (fs::path(path) / "tokenizer.json").string() : path;
  std::ifstream in(file, std::ios::binary);
  if (!in || fs::is_directory(file)) throw Error(fmt::format("{}: cannot read this tokenizer.json", file));
  std::ostringstream text;
  text << in.rdbuf();
  if (in.bad() || text.fail()) throw Error(fmt::format("{}: cannot read this tokenizer.json", file));
  return parse(text.str(), file);
}

}  // namespace tessera
