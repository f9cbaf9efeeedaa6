#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace tessera {

/// How text files are cut into documents. Lines of JSON files hold one document each.
enum class DocumentRule { blank_line, line, file };

struct InputFile {
  std::string path;
  int64_t bytes = 0;  ///< on disk, so compressed where it is
  bool json = false;  ///< .jsonl, .ndjson, .json, perhaps .gz or .zst on top
};

/// The files that `inputs` name: files as given, folders with all text and JSON files below them, in order of
/// name. Errors: Error for what does not exist, with the nearest existing name, and for folders without such
/// files.
std::vector<InputFile> list_inputs(const std::vector<std::string>& inputs);

/// Bytes of a file, decompressed where its first bytes say gzip or zstd.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual size_t read(char* buffer,
                      size_t capacity) = 0;  ///< 0 = the end. Errors: Error naming file and offset
  virtual int64_t position() const = 0;      ///< bytes of the file consumed
  static std::unique_ptr<ByteSource> open(const std::string& path);
};

/// Some whole documents, not yet parsed.
struct TextBlock {
  struct Document {
    size_t begin, end;  ///< in `text`
    int64_t line;       ///< where it starts in its file, from 1
  };
  std::string path;
  bool json = false;
  std::string text;
  std::vector<Document> documents;
  int64_t bytes_done = 0;  ///< of all inputs together
};

/// Streams documents out of files, in order, a few hundred kilobytes at a time; memory is bounded by the
/// longest document.
class DocumentReader {
 public:
  DocumentReader(std::vector<InputFile> files, DocumentRule rule);
  std::optional<TextBlock> next();

 private:
  bool open_next_file();
  bool read_line();  // into line_; false at the file's end
  void add_line(TextBlock& block);
  void end_document(TextBlock& block);

  std::vector<InputFile> files_;
  DocumentRule rule_;
  size_t file_ = 0;  // the one after that being read
  std::unique_ptr<ByteSource> source_;
  std::string buffer_;
  size_t buffer_at_ = 0;
  std::string line_;
  int64_t line_number_ = 0;
  int64_t bytes_before_ = 0;  // of the files read to their end
  std::optional<TextBlock::Document> open_;
};

}  // namespace tessera
