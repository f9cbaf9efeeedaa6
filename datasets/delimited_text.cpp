#include "datasets/delimited_text.h"

#include <algorithm>
#include <utility>

namespace tessera {
namespace {

/// Reads one comma-separated record.
class CsvReader {
 public:
  CsvReader(std::string_view text, size_t begin, size_t max_fields)
      : text_(text), at_(begin), max_fields_(max_fields) {}

  DelimitedRecord read() {
    do {
      field_.clear();
      if (at_ < text_.size() && text_[at_] == '"') {
        read_quoted();
      } else {
        read_plain();
      }
      if (record_.num_fields++ < max_fields_) record_.fields.push_back(std::move(field_));
    } while (!record_.problem && take(","));
    if (!record_.problem && at_ < text_.size() && !take("\n") && !take("\r\n"))
      stop(at_, text_[at_] == '\r' ? "a carriage return without a line feed outside quotes"
                                   : "text after a closing quote; quotes inside quotes are doubled");
    record_.end = at_;
    return std::move(record_);
  }

 private:
  bool take(std::string_view expected) {
    const bool found = text_.substr(at_).starts_with(expected);
    if (found) at_ += expected.size();
    return found;
  }
  void stop(size_t at, const char* problem) {
    record_.problem = problem;
    record_.problem_at = at;
  }
  void read_plain() {
    const size_t end = std::min(text_.find_first_of(",\r\n", at_), text_.size());
    field_ = text_.substr(at_, end - at_);
    at_ = end;
  }
  void read_quoted() {
    const size_t open = at_++;
    for (;;) {
      const size_t quote = text_.find('"', at_);
      if (quote == text_.npos) return stop(open, "a quote that is never closed");
      field_ += text_.substr(at_, quote - at_);
      at_ = quote + 1;
      if (!take("\"")) return;
      field_ += '"';
    }
  }

  std::string_view text_;
  size_t at_, max_fields_;
  std::string field_;
  DelimitedRecord record_;
};

}  // namespace

DelimitedRecord read_csv_record(std::string_view text, size_t begin, size_t max_fields) {
  return CsvReader(text, begin, max_fields).read();
}

DelimitedRecord read_tsv_record(std::string_view text, size_t begin, size_t max_fields) {
  DelimitedRecord record;
  const size_t line_end = std::min(text.find('\n', begin), text.size());
  record.end = std::min(line_end + 1, text.size());
  std::string_view line = text.substr(begin, line_end - begin);
  if (line.ends_with('\r')) line.remove_suffix(1);
  for (;;) {
    const size_t tab = line.find('\t');
    if (record.num_fields++ < max_fields) record.fields.emplace_back(line.substr(0, tab));
    if (tab == line.npos) return record;
    line.remove_prefix(tab + 1);
  }
}

}  // namespace tessera
