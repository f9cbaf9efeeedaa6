#include "datasets/records.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <new>
#include <set>
#include <string_view>
#include <utility>

#include "datasets/paths.h"
#include "datasets/strict_json.h"
#include "datasets/tokenizer/unicode.h"
#include "recipes/error.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr size_t longest_line = size_t{64} << 20;
constexpr size_t longest_name = 256, most_columns = 4096;  // a file may be hostile
constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

std::string read_whole_file(const std::string& path) {
  require_exists(path);
  std::error_code failure;
  const auto size = fs::file_size(path, failure);  // folders and pipes have none
  std::ifstream file(path, std::ios::binary);
  if (failure || !file) throw Error(fmt::format("{}: cannot be read as a file", path));
  std::string content;
  try {
    content.resize(size);
  } catch (const std::bad_alloc&) {
    throw Error(fmt::format("{}: {} bytes do not fit into memory", path, size));
  }
  if (!file.read(content.data(), static_cast<std::streamsize>(size)) && size > 0)
    throw Error(fmt::format("{}: cannot be read: only {} of {} bytes came", path, file.gcount(), size));
  if (content.starts_with(byte_order_mark)) content.erase(0, byte_order_mark.size());
  return content;
}

bool is_blank_line(std::string_view line) { return line.find_first_not_of(" \t\r") == line.npos; }

/// Calls use(line without its end, where it starts, its number from 1).
template <class Use>
void for_each_line(std::string_view content, const Use& use) {
  int64_t number = 1;
  for (size_t begin = 0; begin < content.size(); ++number) {
    const size_t end = std::min(content.find('\n', begin), content.size());
    use(content.substr(begin, end - begin), begin, number);
    begin = end + 1;
  }
}

void check_lines(const std::string& path, std::string_view content) {
  for_each_line(content, [&](std::string_view line, size_t, int64_t number) {
    const auto stop = [&](const char* problem) {
      throw Error(fmt::format("{}:{}: {}", path, number, problem));
    };
    if (line.size() > longest_line) stop("a line longer than 64 MiB");
    if (line.find('\0') != line.npos) stop("a zero byte; valid: text in UTF-8");
    if (!unicode::is_valid(line)) stop("not valid UTF-8; convert the file, for example with iconv");
  });
}

/// Adds the keys below a value: "answers", "answers.text".
void add_columns(const ordered_json& object, const std::string& prefix, std::vector<std::string>& columns) {
  for (const auto& [key, value] : object.items()) {
    if (columns.size() >= most_columns) return;
    if (prefix.size() + key.size() > longest_name) continue;
    const std::string name = prefix + key;
    columns.push_back(name);
    if (value.is_object()) add_columns(value, name + ".", columns);
  }
}

std::string names_of(const std::vector<std::string>& columns, const std::string& given) {
  constexpr size_t shown = 50;
  std::vector<std::string> first(columns.begin(),
                                 columns.begin() + static_cast<int64_t>(std::min(shown, columns.size())));
  std::string text = "; its columns: " + join(first);
  if (columns.size() > shown) text += fmt::format(" and {} more", columns.size() - shown);
  const std::string near = given.empty() ? "" : nearest(given, columns);
  if (!near.empty()) text += fmt::format("; did you mean '{}'?", near);
  return text;
}

/// The value that a path of keys joined by dots names; a key with dots goes before.
const ordered_json* find_value(const ordered_json& object, const std::string& path) {
  if (const auto found = object.find(path); found != object.end()) return &*found;
  for (size_t dot = path.find('.'); dot != path.npos; dot = path.find('.', dot + 1)) {
    const auto parent = object.find(path.substr(0, dot));
    if (parent == object.end() || !parent->is_object()) continue;
    if (const ordered_json* value = find_value(*parent, path.substr(dot + 1))) return value;
  }
  return nullptr;
}

void check_header(const std::vector<std::string>& names, const std::string& where) {
  std::set<std::string> seen;
  for (const std::string& name : names) {
    if (name.size() > longest_name) {
      throw Error(fmt::format("{}: a column name of {} bytes ('{:.40}…'); is the header line missing?", where,
                              name.size(), name));
    }
    if (!seen.insert(name).second) throw Error(fmt::format("{}: the column '{}' stands twice", where, name));
  }
}

}  // namespace

Records::Format Records::format_of(const std::string& path) {
  std::string extension = fs::path(path).extension();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  if (extension == ".jsonl" || extension == ".ndjson" || extension == ".json") return Format::json;
  if (extension == ".csv") return Format::csv;
  if (extension == ".tsv") return Format::tsv;
  std::string message = fmt::format(
      "{}: not a kind of file that holds records; valid: .jsonl, .ndjson, .json (one JSON object a line), "
      ".csv and .tsv",
      path);
  if (extension == ".parquet") {
    message += fmt::format(
        "; Parquet is converted with pandas: pandas.read_parquet('{}').to_json('{}', orient='records', "
        "lines=True)",
        path, fs::path(path).replace_extension(".jsonl").string());
  }
  throw Error(message);
}

Records Records::open(const std::string& path) {
  Records records;
  records.format_ = format_of(path);
  records.path_ = path;
  records.content_ = read_whole_file(path);
  check_lines(path, records.content_);
  if (records.content_.find_first_not_of(" \t\r\n") == std::string::npos)
    throw Error(fmt::format("{}: the file is empty", path));
  records.format_ == Format::json ? records.read_json_lines() : records.read_table();
  if (records.places_.empty()) throw Error(fmt::format("{}: no records, only a header", path));
  return records;
}

void Records::read_json_lines() {
  for_each_line(content_, [&](std::string_view line, size_t begin, int64_t number) {
    if (is_blank_line(line)) return;
    if (places_.empty() && line.substr(line.find_first_not_of(" \t\r")).starts_with('[')) {
      throw Error(fmt::format("{}:{}: a JSON array; valid: one JSON object a line (jq -c '.[]' converts)",
                              path_, number));
    }
    const std::string at = fmt::format("{}:{}", path_, number);
    try {
      const ordered_json object = parse_strict_json(line, at, most_columns);
      if (places_.empty()) add_columns(object, "", columns_);
    } catch (const Error& error) {
      throw Error(fmt::format("{}; valid: one JSON object a line", error.what()));
    }
    places_.push_back({begin, begin + line.size(), number});
  });
}

DelimitedRecord Records::row_at(size_t begin) const {
  const size_t fields = columns_.empty() ? most_columns : columns_.size();
  return format_ == Format::csv ? read_csv_record(content_, begin, fields)
                                : read_tsv_record(content_, begin, fields);
}

void Records::read_table() {
  int64_t line = 1;
  for (size_t begin = 0; begin < content_.size();) {
    const DelimitedRecord row = row_at(begin);
    const auto lines_before = [&](size_t end) {
      return std::count(content_.begin() + static_cast<int64_t>(begin),
                        content_.begin() + static_cast<int64_t>(end), '\n');
    };
    if (row.problem)
      throw Error(fmt::format("{}:{}: {}", path_, line + lines_before(row.problem_at), row.problem));
    const bool blank = content_[begin] == '\n' || content_.compare(begin, 2, "\r\n") == 0;
    if (!blank) read_row(row, {begin, row.end, line});
    line += lines_before(row.end);
    begin = row.end;
  }
}

void Records::read_row(const DelimitedRecord& row, const Place& place) {
  const std::string at = fmt::format("{}:{}", path_, place.line);
  if (place.end - place.begin > longest_line)
    throw Error(fmt::format("{}: a record longer than 64 MiB; is a quote never closed?", at));
  if (!columns_.empty()) {
    if (row.num_fields != columns_.size()) {
      throw Error(fmt::format("{}: {} fields, but the header has {}{}", at, row.num_fields, columns_.size(),
                              names_of(columns_, "")));
    }
    places_.push_back(place);
    return;
  }
  if (row.num_fields > most_columns)
    throw Error(fmt::format("{}: {} columns; valid: at most {}", at, row.num_fields, most_columns));
  check_header(row.fields, at);
  columns_ = row.fields;
}

std::string Records::where(int64_t i) const { return fmt::format("{}:{}", path_, places_.at(i).line); }

std::string_view Records::raw(int64_t i) const {
  const Place& place = places_.at(i);
  return std::string_view(content_).substr(place.begin, place.end - place.begin);
}

std::optional<ordered_json> Records::find(int64_t i, const std::string& column) const {
  if (format_ == Format::json) {
    const ordered_json object = ordered_json::parse(raw(i));
    const ordered_json* value = find_value(object, column);
    return value ? std::optional(*value) : std::nullopt;
  }
  const auto found = std::find(columns_.begin(), columns_.end(), column);
  if (found == columns_.end()) return std::nullopt;
  return row_at(places_.at(i).begin).fields[found - columns_.begin()];
}

bool Records::has(int64_t i, const std::string& column) const {
  const std::optional<ordered_json> value = find(i, column);
  return value && !value->is_null() &&
         (format_ == Format::json || !value->get_ref<const std::string&>().empty());
}

ordered_json Records::json(int64_t i, const std::string& column) const {
  std::optional<ordered_json> value = find(i, column);
  if (value) return *std::move(value);
  std::vector<std::string> columns = columns_;
  if (format_ == Format::json) {
    columns.clear();
    add_columns(ordered_json::parse(raw(i)), "", columns);
  }
  throw Error(fmt::format("{}: no column '{}'{}", where(i), column, names_of(columns, column)));
}

}  // namespace tessera
