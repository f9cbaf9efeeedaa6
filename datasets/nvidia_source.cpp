#include <fmt/format.h>

#include "datasets/nvidia_bert.h"
#include "datasets/sources.h"
#include "recipes/error.h"

namespace tessera {
namespace {

DatasetPtr open(const std::vector<std::string>& paths, const OpenOptions& options) {
  if (options.kind == ExampleKind::causal) {
    throw Error(
        fmt::format("{}: NVIDIA's BERT files hold masked sentence pairs; valid: objectives mlm_nsp and mlm",
                    paths.front()));
  }
  return nvidia_bert(paths, options.sequence_length);
}

DatasetFacts describe(const std::vector<std::string>& paths, bool verify) {
  DatasetFacts facts;
  for (const auto& path : paths) {
    const auto file = hdf5::File::open(path);
    facts.num_examples += file.info("/input_ids").shape.at(0);
    facts.sequence_length = nvidia_bert_sequence_length(file);
  }
  if (verify) {
    const auto data = nvidia_bert(paths, facts.sequence_length ? facts.sequence_length : INT32_MAX, 0);
    for (int64_t i = 0; i < data->size(); ++i) data->get(i);
  }
  return facts;
}

}  // namespace

Source nvidia_bert_source() { return {"NVIDIA BERT file", is_nvidia_bert, open, describe}; }

}  // namespace tessera
