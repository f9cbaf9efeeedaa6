#include "datasets/text_input.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "datasets/paths.h"
#include "recipes/error.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
constexpr size_t block_bytes = size_t{1} << 18;

/// ".jsonl" of "a.jsonl.gz".
std::string kind_of(fs::path path) {
  if (path.extension() == ".gz" || path.extension() == ".zst") path = path.stem();
  return path.extension();
}
bool is_json(const fs::path& path) {
  const std::string kind = kind_of(path);
  return kind == ".jsonl" || kind == ".ndjson" || kind == ".json";
}
bool is_text(const fs::path& path) {
  const std::string kind = kind_of(path);
  return kind == ".txt" || kind == ".text" || kind == ".md";
}
bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r\n\f\v") == line.npos; }

}  // namespace

std::vector<InputFile> list_inputs(const std::vector<std::string>& inputs) {
  std::vector<InputFile> files;
  const auto add = [&](const fs::path& path) {
    files.push_back({path.string(), static_cast<int64_t>(fs::file_size(path)), is_json(path)});
  };
  for (const auto& input : inputs) {
    require_exists(input);
    if (!fs::is_directory(input)) {
      add(input);
      continue;
    }
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(input)) {
      const bool hidden = entry.path().filename().string().starts_with(".");
      if (entry.is_regular_file() && !hidden && (is_json(entry.path()) || is_text(entry.path())))
        found.push_back(entry.path());
    }
    if (found.empty()) {
      throw Error(fmt::format(
          "{}: no text in this folder; valid: files named .txt, .text, .md, .jsonl, .ndjson or .json, "
          "also with .gz or .zst",
          input));
    }
    std::sort(found.begin(), found.end());
    for (const auto& path : found) add(path);
  }
  return files;
}

DocumentReader::DocumentReader(std::vector<InputFile> files, DocumentRule rule)
    : files_(std::move(files)), rule_(rule) {}

bool DocumentReader::open_next_file() {
  if (file_ == files_.size()) return false;
  source_ = ByteSource::open(files_[file_++].path);
  buffer_.clear();
  buffer_at_ = 0;
  line_number_ = 0;
  return true;
}

bool DocumentReader::read_line() {
  line_.clear();
  for (;;) {
    const size_t end = buffer_.find('\n', buffer_at_);
    if (end != buffer_.npos) {
      line_.append(buffer_, buffer_at_, end + 1 - buffer_at_);
      buffer_at_ = end + 1;
      break;
    }
    line_.append(buffer_, buffer_at_);
    buffer_.resize(block_bytes);
    buffer_.resize(source_->read(buffer_.data(), buffer_.size()));
    buffer_at_ = 0;
    if (buffer_.empty()) break;
  }
  if (line_.empty()) return false;
  if (line_.ends_with("\r\n")) line_.erase(line_.size() - 2, 1);
  if (++line_number_ == 1 && line_.starts_with("\xEF\xBB\xBF")) line_.erase(0, 3);  // byte order mark
  return true;
}

void DocumentReader::add_line(TextBlock& block) {
  const bool one_line = block.json || rule_ == DocumentRule::line;
  if (is_blank(line_) && (one_line || rule_ == DocumentRule::blank_line || !open_)) {
    end_document(block);
    return;
  }
  if (!open_) open_ = {block.text.size(), 0, line_number_};
  block.text += line_;
  if (one_line) end_document(block);
}

void DocumentReader::end_document(TextBlock& block) {
  if (!open_) return;
  open_->end = block.text.find_last_not_of(" \t\r\n\f\v") + 1;
  block.documents.push_back(*std::exchange(open_, std::nullopt));
}

std::optional<TextBlock> DocumentReader::next() {
  TextBlock block;
  while (block.documents.empty()) {  // a file may hold none
    if (!source_ && !open_next_file()) return std::nullopt;
    const InputFile& file = files_[file_ - 1];
    block.path = file.path;
    block.json = file.json;
    while (source_ && (open_ || block.text.size() < block_bytes)) {
      if (read_line()) {
        add_line(block);
        block.bytes_done = bytes_before_ + source_->position();
      } else {
        end_document(block);
        source_.reset();
        bytes_before_ += file.bytes;
        block.bytes_done = bytes_before_;
      }
    }
  }
  return block;
}

}  // namespace tessera
