#pragma once
#include <functional>
#include <string>
#include <vector>

#include "datasets/sentences.h"
#include "datasets/text_input.h"
#include "datasets/token_file.h"
#include "datasets/tokenizer.h"
#include "datasets/tokenizer/train.h"

namespace tessera {

struct PrepareProgress {
  const char* stage;  ///< what is being done: "counting words", "tokenising"
  int64_t bytes_done, bytes_total;
};

struct PrepareOptions {
  std::vector<std::string> inputs;  ///< files and folders, see list_inputs()
  std::string output;      ///< folder for train.h5, validation.h5 and tokenizer.json; made if need be
  TokenizerPtr tokenizer;  ///< null: one is trained on the inputs
  TrainerOptions trainer;  ///< for that
  DocumentRule documents = DocumentRule::blank_line;
  SentenceRule sentences = SentenceRule::paragraphs;
  std::string json_field = "text";
  double validation = 0.01;  ///< share of the documents, chosen by their hash; 0 = no validation file
  bool deduplicate =
      false;  ///< keep only the first of equal documents (costs 40 bytes of memory per document)
  bool overwrite = false;
  int threads = 0;  ///< 0 = as many as there are cores
  std::function<void(const PrepareProgress&)> progress = [](const PrepareProgress&) {};
};

struct PrepareSummary {
  int64_t bytes = 0;       ///< of text, decompressed
  int64_t duplicates = 0;  ///< documents dropped
  int64_t empty = 0;       ///< documents without a token
  TokenFileHeader train, validation;
  std::string train_path, validation_path;  ///< the second is empty where no document fell to it
  std::string tokenizer_path;
  double seconds = 0;
};

/// Turns text into token files, on all cores, in constant memory; the files do not depend on the number of
/// threads. All or nothing: works in a hidden folder inside `output` and renames at the end. Errors: Error
/// for inputs that are missing, damaged or without a document, for outputs that are there already, and where
/// another process writes to `output`.
PrepareSummary prepare(const PrepareOptions& options);

/// Learns a tokenizer from the inputs, on all cores; the result does not depend on their number.
TokenizerPtr train_tokenizer(const PrepareOptions& options);

/// What prepare() does to one block of documents; a thread-safe function, apart for tests and for training
/// tokenizers.
struct EncodedBlock {
  struct Document {
    size_t token_end, sentence_end;  ///< in `tokens`, in `sentences`
    uint64_t hash;                   ///< of its text
  };
  std::vector<int32_t> tokens;
  std::vector<uint32_t> sentences;  ///< starts, counted from the document's first token
  std::vector<Document> documents;
  int64_t bytes = 0;  ///< of text
};
EncodedBlock encode_block(const TextBlock& block, const PrepareOptions& options);

/// The text of a document: itself, or the field of its JSON line.
std::string document_text(const TextBlock& block, const TextBlock::Document& document,
                          const std::string& json_field);

}  // namespace tessera
