#pragma once
#include "datasets/dataset.h"
#include "datasets/token_file.h"

namespace tessera {

struct PairOptions {
  int64_t sequence_length = 128;  ///< with [CLS] and two [SEP]
  uint64_t seed = 0;
  double short_sequence_probability = 0.1;
  int duplicate = 1;  ///< passes over the documents, each with its own cuts and partners
  int threads = 0;    ///< for counting at the start; 0 = as many as there are cores
};

/// BERT's pairs of segments for next-sentence prediction, by the rules of google-research/bert
/// create_pretraining_data.py: [CLS] A [SEP] B [SEP], where B is what follows A or, half of the time, comes
/// from another document. A document's examples depend on (seed, pass, document) only and are computed when
/// asked for. Masking is the objective's. Errors: Error where the file has no [CLS] or [SEP], or
/// sequence_length is below 5.
DatasetPtr sentence_pairs(TokenFilePtr file, const PairOptions& options);

}  // namespace tessera
