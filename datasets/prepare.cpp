#include "datasets/prepare.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <unordered_set>

#include "datasets/ordered_pipeline.h"
#include "datasets/output_folder.h"
#include "recipes/error.h"
#include "recipes/random.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// The two files being written, and what decides which document goes where.
class Splitter {
 public:
  Splitter(const PrepareOptions& options, const std::string& folder)
      : options_(options),
        train_(folder, "train", *options.tokenizer),
        validation_(folder, "validation", *options.tokenizer) {}

  void add(const EncodedBlock& block, PrepareSummary& summary) {
    size_t token = 0, sentence = 0;
    for (const auto& document : block.documents) {
      const std::span tokens(block.tokens.data() + token, document.token_end - token);
      const std::span sentences(block.sentences.data() + sentence, document.sentence_end - sentence);
      token = document.token_end;
      sentence = document.sentence_end;
      if (tokens.empty()) {
        ++summary.empty;
      } else if (options_.deduplicate && !seen_.insert(document.hash).second) {
        ++summary.duplicates;
      } else {
        (is_validation(document.hash) ? validation_ : train_).append(tokens, sentences);
      }
    }
    summary.bytes += block.bytes;
  }

  TokenFileWriter& train() { return train_; }
  TokenFileWriter& validation() { return validation_; }

 private:
  bool is_validation(uint64_t hash) const { return (mix(hash, 0) >> 11) * 0x1p-53 < options_.validation; }

  const PrepareOptions& options_;
  TokenFileWriter train_, validation_;
  std::unordered_set<uint64_t> seen_;
};

void check(const PrepareOptions& options) {
  if (!(options.validation >= 0 && options.validation < 1)) {
    throw Error(fmt::format("validation share {} is out of range; valid: 0 to below 1", options.validation));
  }
  if (options.overwrite) return;
  for (const char* name : {"train.h5", "validation.h5"}) {
    if (fs::exists(fs::path(options.output) / name)) {
      throw Error(fmt::format("{}/{}: is there already; give --overwrite to replace it, or another --output",
                              options.output, name));
    }
  }
}

void write_whole(const std::string& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << content;
  file.close();
  if (!file) throw Error(fmt::format("{}: cannot be written", path));
  sync_to_disk(path);
}

}  // namespace

std::string document_text(const TextBlock& block, const TextBlock::Document& document,
                          const std::string& json_field) {
  const auto begin = block.text.begin() + document.begin, end = block.text.begin() + document.end;
  if (end - begin > INT32_MAX) {
    throw Error(fmt::format(
        "{}:{}: a document of {} bytes, which is too long; valid: up to 2 GiB; cut files by --documents "
        "blank_line or line",
        block.path, document.line, end - begin));
  }
  if (!block.json) return {begin, end};
  const auto where = fmt::format("{}:{}", block.path, document.line);
  nlohmann::json value;
  try {
    value = nlohmann::json::parse(begin, end);
  } catch (const nlohmann::json::parse_error& error) {
    throw Error(fmt::format("{}: not a line of JSON: {}", where, error.what()));
  }
  const auto field = value.find(json_field);
  if (!value.is_object() || field == value.end() || !field->is_string()) {
    std::vector<std::string> texts;
    if (value.is_object()) {
      for (const auto& [key, entry] : value.items()) {
        if (entry.is_string()) texts.push_back(key);
      }
    }
    throw Error(fmt::format("{}: no text field '{}'{}", where, json_field, valid_names(json_field, texts)));
  }
  return field->get<std::string>();
}

EncodedBlock encode_block(const TextBlock& block, const PrepareOptions& options) {
  EncodedBlock result;
  for (const auto& document : block.documents) {
    const std::string text = document_text(block, document, options.json_field);
    const size_t first = result.tokens.size();
    const std::vector<uint32_t> starts = sentence_starts(text, options.sentences);
    for (size_t i = 0; i < starts.size(); ++i) {
      const size_t end = i + 1 < starts.size() ? starts[i + 1] : text.size();
      const size_t before = result.tokens.size();
      options.tokenizer->encode(std::string_view(text).substr(starts[i], end - starts[i]), result.tokens);
      if (result.tokens.size() > before) result.sentences.push_back(static_cast<uint32_t>(before - first));
    }
    result.documents.push_back(
        {result.tokens.size(), result.sentences.size(), XXH3_64bits(text.data(), text.size())});
    result.bytes += static_cast<int64_t>(text.size());
  }
  return result;
}

/// All inputs through `transform`, side by side; `use` gets the results in their order.
template <class Out>
static void for_each_block(const PrepareOptions& options, const char* stage,
                           const std::function<Out(const TextBlock&)>& transform,
                           const std::function<void(const Out&)>& use) {
  const std::vector<InputFile> inputs = list_inputs(options.inputs);
  int64_t total = 0;
  for (const auto& input : inputs) total += input.bytes;
  DocumentReader reader(inputs, options.documents);
  const int threads =
      options.threads > 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
  using Done = std::pair<int64_t, Out>;
  OrderedPipeline<TextBlock, Done> pipeline(
      [&] { return reader.next(); },
      [&](const TextBlock& block) { return Done(block.bytes_done, transform(block)); }, threads, 4 * threads);
  while (auto done = pipeline.next()) {
    use(done->second);
    options.progress({stage, done->first, total});
  }
}

TokenizerPtr train_tokenizer(const PrepareOptions& options) {
  std::mutex mutex;
  std::vector<WordCounter> idle;  // one per thread comes into being
  const auto count = [&](const TextBlock& block) {
    std::unique_lock lock(mutex);
    WordCounter counter = idle.empty() ? WordCounter(options.trainer) : std::move(idle.back());
    if (!idle.empty()) idle.pop_back();
    lock.unlock();
    for (const auto& document : block.documents)
      counter.add(document_text(block, document, options.json_field));
    lock.lock();
    idle.push_back(std::move(counter));
    return true;
  };
  for_each_block<bool>(options, "counting words", count, [](bool) {});
  WordCounter all(options.trainer);
  for (auto& counter : idle) all.merge(std::move(counter));
  return train(options.trainer, all);
}

PrepareSummary prepare(const PrepareOptions& given) {
  const auto start = Clock::now();
  check(given);
  list_inputs(given.inputs);  // complains before anything is made
  OutputFolder output(given.output);
  PrepareOptions options = given;
  if (!options.tokenizer) options.tokenizer = train_tokenizer(options);

  Splitter splitter(options, output.work());
  PrepareSummary summary;
  for_each_block<EncodedBlock>(
      options, "tokenising", [&](const TextBlock& block) { return encode_block(block, options); },
      [&](const EncodedBlock& block) { splitter.add(block, summary); });
  summary.train = splitter.train().finish();
  summary.validation = splitter.validation().finish();
  if (summary.train.num_documents == 0) {
    throw Error(
        fmt::format("{}: no document with a token in it for the training file", join(options.inputs)));
  }
  write_whole(output.work() + "/tokenizer.json", options.tokenizer->json());
  summary.tokenizer_path = output.publish("tokenizer.json");
  if (summary.validation.num_documents > 0) summary.validation_path = output.publish("validation.h5");
  summary.train_path = output.publish("train.h5");
  summary.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return summary;
}

}  // namespace tessera
