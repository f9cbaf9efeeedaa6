#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace tessera {

/// A record of a table in text.
struct DelimitedRecord {
  std::vector<std::string> fields;  ///< at most as many as asked for
  size_t num_fields = 0;            ///< all
  size_t end = 0;                   ///< where the next record starts
  const char* problem = nullptr;    ///< why it is not well-formed
  size_t problem_at = 0;            ///< offset in the text
};

/// The comma-separated record (RFC 4180) that starts at `begin`: fields may stand in quotes, where "" is a
/// quote and line breaks are text; quotes inside a field that does not start with one are text. A line ends
/// with LF or CRLF.
DelimitedRecord read_csv_record(std::string_view text, size_t begin, size_t max_fields);

/// The record of tab-separated fields that starts at `begin`. Quotes are text, as in GLUE's files.
DelimitedRecord read_tsv_record(std::string_view text, size_t begin, size_t max_fields);

}  // namespace tessera
