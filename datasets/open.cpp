#include "datasets/open.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "datasets/hdf5.h"
#include "datasets/paths.h"
#include "datasets/sources.h"
#include "datasets/views.h"
#include "recipes/error.h"
#include "recipes/random.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// Every kind of file that can be trained on: one file and one line here each.
const std::vector<Source>& sources() {
  static const std::vector<Source> table{token_file_source(), nvidia_bert_source()};
  return table;
}

/// The HDF5 files that the paths name, folders with all below them.
std::vector<std::string> list_files(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const auto& path : paths) {
    require_exists(path);
    if (!fs::is_directory(path)) {
      files.push_back(path);
      continue;
    }
    std::vector<std::string> found;
    for (const auto& entry : fs::recursive_directory_iterator(path)) {
      const auto extension = entry.path().extension();
      const bool hidden = entry.path().string().find("/.") != std::string::npos;
      if (!hidden && (extension == ".h5" || extension == ".hdf5")) found.push_back(entry.path());
    }
    if (found.empty()) throw Error(fmt::format("{}: no .h5 or .hdf5 file in this folder", path));
    std::sort(found.begin(), found.end());
    files.insert(files.end(), found.begin(), found.end());
  }
  if (files.empty()) throw Error("no data file is given");
  return files;
}

const Source& source_of(const std::string& path) {
  const auto file = hdf5::File::open(path);
  std::vector<std::string> names;
  for (const auto& source : sources()) {
    if (source.recognise(file)) return source;
    names.emplace_back(source.name);
  }
  throw Error(fmt::format(
      "{}: an HDF5 file of unknown content; valid: {} (tessera prepare makes token files from text)", path,
      join(names)));
}

/// The one source of all the files.
const Source& common_source(const std::vector<std::string>& files) {
  const Source& first = source_of(files.front());
  for (const auto& file : files) {
    const Source& other = source_of(file);
    if (&other != &first) {
      throw Error(fmt::format("{} is a {}, but {} is a {}: data of one recipe entry must be of one kind",
                              files.front(), first.name, file, other.name));
    }
  }
  return first;
}

}  // namespace

DatasetPtr open_dataset(const std::vector<std::string>& paths, const OpenOptions& options) {
  const auto files = list_files(paths);
  return common_source(files).open(files, options);
}

namespace {

OpenOptions options_of(const DataSection& data, ExampleKind kind, uint64_t seed) {
  return {.kind = kind,
          .sequence_length = data.sequence_length,
          .seed = seed,
          .pack = data.pack,
          .short_sequence_probability = data.short_sequence_probability,
          .duplicate = static_cast<int>(data.duplicate)};
}

}  // namespace

TrainingData open_training_data(const DataSection& data, const OpenSource& open, uint64_t seed,
                                int64_t global_batch) {
  TrainingData result;
  std::vector<DatasetPtr> endless;
  std::vector<double> weights;
  for (const auto& source : data.train.sources) {
    const uint64_t own = mix(seed, weights.size());
    const auto dataset = open(source.path, own);
    result.epoch_size += dataset->size();
    if (const std::string note = dataset->note(); !note.empty()) result.notes.push_back(note);
    endless.push_back(epochs(dataset, own, data.shuffle));
    weights.push_back(source.weight);
  }
  result.samples = endless.size() == 1 ? endless.front() : mixed(std::move(endless), weights, seed);
  if (data.bucket > 0) result.samples = bucketed(result.samples, global_batch, data.bucket, seed);
  return result;
}

TrainingData open_training_data(const DataSection& data, ExampleKind kind, uint64_t seed,
                                int64_t global_batch) {
  const auto open = [&](const std::string& path, uint64_t own) {
    return open_dataset({path}, options_of(data, kind, own));
  };
  return open_training_data(data, open, seed, global_batch);
}

DatasetPtr open_validation_data(const DataSection& data, ExampleKind kind, uint64_t seed) {
  if (!data.validation) return nullptr;
  OpenOptions options = options_of(data, kind, seed);
  options.duplicate = 1;
  return open_dataset({*data.validation}, options);
}

DatasetFacts describe_dataset(const std::vector<std::string>& paths, bool verify) {
  const auto files = list_files(paths);
  const Source& source = common_source(files);
  DatasetFacts facts = source.describe(files, verify);
  facts.kind = source.name;
  facts.num_files = static_cast<int64_t>(files.size());
  return facts;
}

}  // namespace tessera
