#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/delimited_text.h"

namespace tessera {

/// The records of a task's file: JSON lines (.jsonl, .ndjson, .json: one object a line), CSV (RFC 4180) or
/// TSV (no quoting), both with a header line. UTF-8, with or without a byte order mark; blank lines are
/// passed over. The file is checked whole when opened and kept in memory; const functions are thread-safe.
///
/// Columns of JSON are keys; "answers.text" is the key "text" of the object "answers", unless there is a key
/// with a dot. Errors of the functions that take a column: Error naming file, line and column, for one that
/// the record does not have with its columns and the nearest match.
class Records {
 public:
  /// Errors: Error naming the file, and the line, for another extension, what cannot be read, is not UTF-8 or
  /// well-formed, keys or column names that stand twice, a wrong number of fields, lines over 64 MiB, more
  /// than 4096 columns or keys of an object, and for a file without records.
  static Records open(const std::string& path);

  int64_t size() const { return static_cast<int64_t>(places_.size()); }
  /// The header's, or the first record's: keys, objects followed by theirs ("answers", "answers.text").
  const std::vector<std::string>& columns() const { return columns_; }
  /// "PATH:LINE" of record i, for messages.
  std::string where(int64_t i) const;

  /// Is there a value: in JSON not null, in CSV and TSV not empty?
  bool has(int64_t i, const std::string& column) const;
  /// Text; numbers and truth values as JSON writes them (a fraction in a short form that reads back equal).
  std::string text(int64_t i, const std::string& column) const;
  /// A number without a fraction, or text that is one; true and false are 1 and 0.
  int64_t integer(int64_t i, const std::string& column) const;
  /// A finite number, or text that is one.
  double number(int64_t i, const std::string& column) const;
  /// A list, its elements as text() and integer() read them. In CSV and TSV, a JSON list ("[…]") or words
  /// separated by spaces.
  std::vector<std::string> texts(int64_t i, const std::string& column) const;
  std::vector<int64_t> integers(int64_t i, const std::string& column) const;
  /// The value as it is; in CSV and TSV always a string.
  nlohmann::ordered_json json(int64_t i, const std::string& column) const;

 private:
  enum class Format { json, csv, tsv };
  struct Place {
    size_t begin, end;  // in content_
    int64_t line;
  };

  Records() = default;
  static Format format_of(const std::string& path);
  void read_json_lines();
  void read_table();
  void read_row(const DelimitedRecord& row, const Place& place);
  DelimitedRecord row_at(size_t begin) const;
  std::string_view raw(int64_t i) const;
  std::optional<nlohmann::ordered_json> find(int64_t i, const std::string& column) const;
  nlohmann::ordered_json list(int64_t i, const std::string& column) const;
  std::string where(int64_t i, const std::string& column) const;

  std::string path_;
  Format format_ = Format::json;
  std::string content_;
  std::vector<Place> places_;
  std::vector<std::string> columns_;
};

}  // namespace tessera
