#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "datasets/hdf5.h"
#include "datasets/mapped_file.h"
#include "datasets/tokenizer.h"

namespace tessera {

/// What a token file says about itself.
struct TokenFileHeader {
  int32_t vocab_size = 0;
  int64_t num_documents = 0, num_sentences = 0, num_tokens = 0;
  double unigram_entropy =
      0;  ///< nats per token: the loss of a model that knows only how frequent each token is
  SpecialTokens special;
};

/// When to compare the content with its hash: always, never, or where the file is small enough for it to cost
/// nothing (256 MB).
enum class Verify { small, always, never };

/// A tokenised text in our HDF5 format (docs/data.md), read through memory mapping; thread-safe. Errors:
/// Error naming the file where it is missing, foreign, of a newer format, truncated or damaged.
class TokenFile {
 public:
  explicit TokenFile(const std::string& path, Verify verify = Verify::small);

  /// Whether the file's head says that it is one of ours.
  static bool recognise(const hdf5::File& file);

  const std::string& path() const { return path_; }
  const TokenFileHeader& header() const { return header_; }
  std::string tokenizer_json() const;

  /// Token offsets of the documents, [num_documents + 1].
  std::span<const uint64_t> documents() const { return documents_; }
  /// Token offsets of the sentences, [num_sentences + 1]; every document begins with one.
  std::span<const uint64_t> sentences() const { return sentences_; }
  /// Index of the first sentence of a document, or num_sentences for document num_documents.
  int64_t first_sentence(int64_t document) const;

  /// Appends tokens [begin, end).
  void read(uint64_t begin, uint64_t end, std::vector<int32_t>& tokens) const;

 private:
  void locate();
  void check_offsets() const;
  void check_hash() const;
  [[noreturn]] void damaged(const std::string& what) const;

  std::string path_;
  TokenFileHeader header_;
  MappedFile file_;
  bool wide_ = false;  // 32-bit tokens
  const std::byte* tokens_ = nullptr;
  std::span<const uint64_t> documents_, sentences_;  // in the mapping, or in unaligned_
  std::vector<std::vector<uint64_t>> unaligned_;     // copies of what the file holds at odd addresses
};
using TokenFilePtr = std::shared_ptr<const TokenFile>;

/// Writes a token file in one pass of constant memory: documents are appended to spool files in `folder`,
/// which finish() copies into the HDF5 file. The caller renames the finished file into place and removes the
/// folder.
class TokenFileWriter {
 public:
  TokenFileWriter(const std::string& folder, const std::string& name, const Tokenizer& tokenizer);
  ~TokenFileWriter();

  /// One document: its tokens, and where its sentences begin in them (ascending, the first is 0; empty = one
  /// sentence).
  void append(std::span<const int32_t> tokens, std::span<const uint32_t> sentences);

  /// Writes FOLDER/NAME.h5, synchronised to disk, and returns what it says.
  TokenFileHeader finish();

 private:
  struct Spool;
  std::string path_;
  std::string tokenizer_json_;
  TokenFileHeader header_;
  bool wide_;
  std::vector<uint64_t> counts_;  // per token id
  std::vector<std::byte> packed_;
  std::unique_ptr<Spool> tokens_, documents_, sentences_;
};

/// Flushes a file or folder to the disk. Errors: Error naming the path.
void sync_to_disk(const std::string& path);

}  // namespace tessera
