#pragma once
#include <functional>
#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/token_windows.h"

namespace tessera {

/// What an objective wants its examples to be.
enum class ExampleKind {
  pairs,   ///< [CLS] A [SEP] B [SEP] with next_sentence
  single,  ///< [CLS] text [SEP]
  causal,  ///< sequence_length + 1 tokens: inputs and, shifted by one, labels
};

struct OpenOptions {
  ExampleKind kind = ExampleKind::pairs;
  int64_t sequence_length = 128;
  uint64_t seed = 0;
  Pack pack = Pack::join;                   ///< single and causal
  double short_sequence_probability = 0.1;  ///< pairs
  int duplicate = 1;                        ///< pairs: passes over the text, each with other pairs
};

/// Opens files or folders of one kind, whichever it is, as one finite dataset in order of the paths (folders:
/// of names). Errors: Error for missing files (with the nearest existing name), unknown or mixed kinds, files
/// that cannot give such examples, different tokenizers, and text too short for one sequence.
DatasetPtr open_dataset(const std::vector<std::string>& paths, const OpenOptions& options);

/// The samples of a run, endless, and how many make an epoch.
struct TrainingData {
  DatasetPtr samples;
  int64_t epoch_size = 0;
  std::vector<std::string> notes;  ///< Dataset::note() of the sources that have one
};

/// How one path of `data` becomes a finite dataset; `seed`: the source's own.
using OpenSource = std::function<DatasetPtr(const std::string& path, uint64_t seed)>;

/// What `data.train` names, in epochs, shuffled if so said, several sources mixed by weight, in buckets of
/// lengths if so said. Errors as open_dataset(), or open's.
TrainingData open_training_data(const DataSection& data, const OpenSource& open, uint64_t seed,
                                int64_t global_batch);
TrainingData open_training_data(const DataSection& data, ExampleKind kind, uint64_t seed,
                                int64_t global_batch = 1);

/// What `data.validation` names, finite and always in the same order; null where it names nothing.
DatasetPtr open_validation_data(const DataSection& data, ExampleKind kind, uint64_t seed);

/// What is in a dataset, without its examples.
struct DatasetFacts {
  std::string kind;  ///< "token file", "NVIDIA BERT"
  int64_t num_files = 0;
  int64_t num_documents = 0, num_sentences = 0, num_tokens = 0;  ///< token files only
  int64_t num_examples = 0;                                      ///< already cut data only (NVIDIA's)
  int64_t sequence_length = 0;                                   ///< already cut data of one length only
  int32_t vocab_size = 0;                                        ///< 0 = not said
  double unigram_entropy = 0;  ///< nats per token, mean over the files; token files only
  std::string tokenizer_json;  ///< "" where the files hold none
};

/// Errors as open_dataset(). `verify`: read everything and compare with the hashes inside.
DatasetFacts describe_dataset(const std::vector<std::string>& paths, bool verify = false);

}  // namespace tessera
