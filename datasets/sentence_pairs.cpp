#include "datasets/sentence_pairs.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <thread>

#include "recipes/error.h"
#include "recipes/random.h"

namespace tessera {
namespace {

/// One example of a document: A is the sentences [begin, middle), a true B [middle, end).
struct Instance {
  int64_t begin, middle, end;
  bool random_next;
};

/// Tokens [begin, end) of the file.
struct Range {
  uint64_t begin, end;
  int64_t size() const { return static_cast<int64_t>(end - begin); }
};

class SentencePairs : public Dataset {
 public:
  SentencePairs(TokenFilePtr file, const PairOptions& options)
      : file_(std::move(file)), options_(options), max_tokens_(options.sequence_length - 3) {
    count_instances();
  }

  int64_t size() const override { return starts_.back(); }

  Example get(int64_t index) const override {
    const int64_t slot = std::upper_bound(starts_.begin(), starts_.end(), index) - starts_.begin() - 1;
    const int64_t documents = file_->header().num_documents, pass = slot / documents,
                  document = slot % documents;
    RandomStream random = stream_of(pass, document);
    const int64_t target = target_length(random);
    int64_t left = index - starts_[slot];
    Instance chosen{};
    for_each_instance(document, target, random, [&](const Instance& instance) {
      chosen = instance;
      return left-- > 0;
    });
    // What only concerns this example has its own stream, so that counting need not replay it.
    RandomStream own(mix(options_.seed, 1), static_cast<uint64_t>(index));
    return make_example(index, document, target, chosen, own);
  }

 private:
  RandomStream stream_of(int64_t pass, int64_t document) const {
    return RandomStream(mix(options_.seed, pass + 2), static_cast<uint64_t>(document));
  }

  /// Most documents aim at full sequences, some at short ones, as fine-tuning data is often short.
  int64_t target_length(RandomStream& random) const {
    if (random.uniform() >= options_.short_sequence_probability) return max_tokens_;
    return 2 + random.below(static_cast<uint32_t>(max_tokens_ - 1));
  }

  /// Calls use(instance) for each example of the document, until it returns false.
  template <class Use>
  void for_each_instance(int64_t document, int64_t target, RandomStream& random, const Use& use) const {
    const auto sentences = file_->sentences();
    const int64_t last = file_->first_sentence(document + 1);
    int64_t begin = file_->first_sentence(document);
    for (int64_t i = begin; i < last; ++i) {
      if (i + 1 < last && static_cast<int64_t>(sentences[i + 1] - sentences[begin]) < target) continue;
      const int64_t count = i + 1 - begin;
      Instance instance{begin, begin + 1, i + 1, true};
      if (count > 1) instance.middle = begin + 1 + random.below(static_cast<uint32_t>(count - 1));
      if (count > 1) instance.random_next = random.uniform() < 0.5;
      // The sentences that a random B displaces start the next chunk.
      begin = instance.random_next ? instance.middle : instance.end;
      i = begin - 1;
      if (!use(instance)) return;
    }
  }

  /// starts_[pass * documents + document] = examples before it.
  void count_instances() {
    const int64_t documents = file_->header().num_documents, slots = documents * options_.duplicate;
    starts_.assign(slots + 1, 0);
    const auto count = [&](int64_t first, int64_t end) {
      for (int64_t slot = first; slot < end; ++slot) {
        RandomStream random = stream_of(slot / documents, slot % documents);
        const int64_t target = target_length(random);
        for_each_instance(slot % documents, target, random,
                          [&](const Instance&) { return ++starts_[slot + 1] > 0; });
      }
    };
    const int64_t cores =
        options_.threads > 0 ? options_.threads : std::max(1u, std::thread::hardware_concurrency());
    const int64_t threads = std::min(cores, 1 + slots / 10'000);
    std::vector<std::jthread> workers;
    for (int64_t i = 1; i < threads; ++i)
      workers.emplace_back(count, slots * i / threads, slots * (i + 1) / threads);
    count(0, slots / threads);
    workers.clear();  // joins
    std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
  }

  /// A run of sentences of another document, from a random one on, until `length` tokens are reached.
  Range random_segment(int64_t document, int64_t length, RandomStream& random) const {
    const auto sentences = file_->sentences();
    int64_t other = document;
    for (int draw = 0; draw < 10 && other == document; ++draw) {
      other = random.below(static_cast<uint32_t>(file_->header().num_documents));
    }
    const int64_t first = file_->first_sentence(other), last = file_->first_sentence(other + 1);
    const int64_t begin = first + random.below(static_cast<uint32_t>(last - first));
    int64_t end = begin + 1;
    while (end < last && static_cast<int64_t>(sentences[end] - sentences[begin]) < length) ++end;
    return {sentences[begin], sentences[end]};
  }

  /// Drops tokens from the front or back of the longer segment until both fit.
  void truncate(Range& a, Range& b, RandomStream& random) const {
    while (a.size() + b.size() > max_tokens_) {
      Range& longer = a.size() > b.size() ? a : b;
      random.uniform() < 0.5 ? ++longer.begin : --longer.end;
    }
  }

  Example make_example(int64_t index, int64_t document, int64_t target, const Instance& instance,
                       RandomStream& random) const {
    const auto sentences = file_->sentences();
    Range a{sentences[instance.begin], sentences[instance.middle]},
        b{sentences[instance.middle], sentences[instance.end]};
    if (instance.random_next) b = random_segment(document, target - a.size(), random);
    truncate(a, b, random);
    const auto& special = file_->header().special;
    Example example;
    example.index = index;
    example.next_sentence = instance.random_next;
    example.tokens.reserve(a.size() + b.size() + 3);
    example.tokens.push_back(special.cls);
    file_->read(a.begin, a.end, example.tokens);
    example.tokens.push_back(special.sep);
    example.segments.assign(example.tokens.size(), 0);
    file_->read(b.begin, b.end, example.tokens);
    example.tokens.push_back(special.sep);
    example.segments.resize(example.tokens.size(), 1);
    return example;
  }

  TokenFilePtr file_;
  PairOptions options_;
  int64_t max_tokens_;
  std::vector<int64_t> starts_;
};

}  // namespace

DatasetPtr sentence_pairs(TokenFilePtr file, const PairOptions& options) {
  const auto& special = file->header().special;
  if (special.cls < 0 || special.sep < 0) {
    throw Error(fmt::format(
        "{}: its tokenizer has no [CLS] and [SEP], which sentence pairs need; prepare the text with a "
        "WordPiece tokenizer (tessera prepare --train-tokenizer wordpiece)",
        file->path()));
  }
  if (options.sequence_length < 5) {
    throw Error(fmt::format("sequence_length {} is too short for sentence pairs; valid: at least 5",
                            options.sequence_length));
  }
  return std::make_shared<SentencePairs>(std::move(file), options);
}

}  // namespace tessera
