#pragma once
#include <string>
#include <vector>

#include "datasets/dataset.h"
#include "datasets/hdf5.h"

namespace tessera {

/// Whether an HDF5 file has the layout of NVIDIA's BERT pre-training data (fixed arrays or MLPerf's rows of
/// varying length).
bool is_nvidia_bert(const hdf5::File& file);

/// Tokens per sequence of a file with fixed arrays; 0 for rows of varying length.
int64_t nvidia_bert_sequence_length(const hdf5::File& file);

/// NVIDIA's BERT pre-training files, already masked, in the given order: input_ids, segment_ids,
/// masked_lm_positions, masked_lm_ids, next_sentence_labels, and input_mask for fixed arrays. Blocks of rows
/// are decompressed when needed and kept up to `cache_bytes`. Errors: Error naming the file for missing or
/// misshapen arrays, rows longer than `sequence_length` and positions outside their row; fixed arrays of
/// another length than sequence_length.
DatasetPtr nvidia_bert(const std::vector<std::string>& paths, int64_t sequence_length,
                       int64_t cache_bytes = int64_t{1} << 30);

}  // namespace tessera
