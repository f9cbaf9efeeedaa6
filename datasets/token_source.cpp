#include <fmt/format.h>

#include <algorithm>

#include "datasets/sentence_pairs.h"
#include "datasets/sources.h"
#include "datasets/views.h"
#include "recipes/error.h"

namespace tessera {
namespace {

/// [CLS] text [SEP], with [SEP] between joined documents too.
WindowOptions single_windows(const TokenFile& file, const OpenOptions& options) {
  const auto& special = file.header().special;
  if (special.cls < 0 || special.sep < 0) {
    throw Error(fmt::format(
        "{}: its tokenizer has no [CLS] and [SEP], which this objective needs; prepare the text with a "
        "WordPiece tokenizer, or train a causal model",
        file.path()));
  }
  const int64_t window = options.sequence_length - 2;
  if (window < 1)
    throw Error(fmt::format("sequence_length {} is too short; valid: at least 3", options.sequence_length));
  return {.window = window,
          .stride = window,
          .pack = options.pack,
          .separator = options.pack == Pack::join ? special.sep : -1,
          .prefix = special.cls,
          .suffix = special.sep};
}

WindowOptions causal_windows(const TokenFile& file, const OpenOptions& options) {
  const auto& special = file.header().special;
  return {.window = options.sequence_length + 1,
          .stride = options.sequence_length,
          .pack = options.pack,
          .separator = special.end >= 0 ? special.end : special.sep};
}

DatasetPtr open_one(const TokenFilePtr& file, const OpenOptions& options) {
  switch (options.kind) {
    case ExampleKind::pairs:
      return sentence_pairs(file, {.sequence_length = options.sequence_length,
                                   .seed = options.seed,
                                   .short_sequence_probability = options.short_sequence_probability,
                                   .duplicate = options.duplicate});
    case ExampleKind::single:
      return token_windows(file, single_windows(*file, options));
    case ExampleKind::causal:
      return token_windows(file, causal_windows(*file, options));
  }
  throw std::logic_error("unknown kind of example");
}

std::vector<TokenFilePtr> open_all(const std::vector<std::string>& paths, Verify verify) {
  std::vector<TokenFilePtr> files;
  std::string tokenizer;
  for (const auto& path : paths) {
    files.push_back(std::make_shared<TokenFile>(path, verify));
    if (paths.size() == 1) break;
    const std::string other = files.back()->tokenizer_json();
    if (files.size() == 1) tokenizer = other;
    if (other != tokenizer) {
      throw Error(fmt::format("{} and {} were prepared with different tokenizers", paths.front(), path));
    }
  }
  return files;
}

DatasetPtr open(const std::vector<std::string>& paths, const OpenOptions& options) {
  std::vector<DatasetPtr> datasets;
  int64_t tokens = 0;
  for (const auto& file : open_all(paths, Verify::small)) {
    // Files of one text must not draw the same random choices.
    OpenOptions own = options;
    own.seed += datasets.size();
    datasets.push_back(open_one(file, own));
    tokens += file->header().num_tokens;
  }
  DatasetPtr all = datasets.size() == 1 ? datasets.front() : concatenated(std::move(datasets));
  if (all->size() == 0) {
    throw Error(fmt::format(
        "{}: {} tokens are too few for one sequence of {}; valid: a shorter sequence_length, or more text",
        join(paths), tokens, options.sequence_length));
  }
  return all;
}

DatasetFacts describe(const std::vector<std::string>& paths, bool verify) {
  DatasetFacts facts;
  for (const auto& file : open_all(paths, verify ? Verify::always : Verify::small)) {
    const auto& header = file->header();
    facts.num_documents += header.num_documents;
    facts.num_sentences += header.num_sentences;
    facts.num_tokens += header.num_tokens;
    facts.vocab_size = header.vocab_size;
    facts.unigram_entropy += header.unigram_entropy * static_cast<double>(header.num_tokens);
    if (facts.tokenizer_json.empty()) facts.tokenizer_json = file->tokenizer_json();
  }
  facts.unigram_entropy /= static_cast<double>(std::max<int64_t>(1, facts.num_tokens));
  return facts;
}

}  // namespace

Source token_file_source() { return {"token file", TokenFile::recognise, open, describe}; }

}  // namespace tessera
