#include "datasets/prepare.h"

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>

#include "launch/commands.h"
#include "recipes/error.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;

/// A bar that redraws itself on a terminal; elsewhere a line when a stage has gone another fifth of its way.
class ProgressLine {
 public:
  void show(const PrepareProgress& progress) {
    const double part = static_cast<double>(progress.bytes_done) /
                        static_cast<double>(std::max<int64_t>(1, progress.bytes_total));
    if (progress.stage != stage_) {
      finish();
      stage_ = progress.stage;
      start_ = Clock::now();
      next_ = 0.2;
    }
    const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
    const double rate = static_cast<double>(progress.bytes_done) / 1e6 / std::max(seconds, 1e-3);
    if (terminal_ && (Clock::now() - drawn_ > std::chrono::milliseconds(100) || part >= 1)) {
      const std::string bar(static_cast<size_t>(part * 30), '#');
      fmt::print(stderr, "\r{:<14} [{:<30}] {:3.0f} %  {:.1f} MB/s, {:.0f} s left \033[K", stage_, bar,
                 100 * part, rate, seconds / std::max(part, 1e-6) * (1 - part));
      std::fflush(stderr);
      drawn_ = Clock::now();
    } else if (!terminal_ && part >= next_) {
      fmt::print(stderr, "{}: {:.0f} %, {:.1f} MB/s\n", stage_, 100 * part, rate);
      while (next_ <= part) next_ += 0.2;
    }
  }
  void finish() {
    if (terminal_ && !stage_.empty()) std::fputc('\n', stderr);
    stage_.clear();
  }

 private:
  const bool terminal_ = isatty(STDERR_FILENO);
  std::string stage_;
  Clock::time_point start_, drawn_;
  double next_ = 0.2;
};

void print_file(const char* what, const std::string& path, const TokenFileHeader& header) {
  fmt::print("{:<11} {}: {} documents, {} sentences, {} tokens, unigram entropy {:.3f} nats\n", what, path,
             header.num_documents, header.num_sentences, header.num_tokens, header.unigram_entropy);
}

int run_prepare(PrepareOptions options, const std::string& tokenizer) {
  if (!tokenizer.empty()) options.tokenizer = Tokenizer::load(tokenizer);
  ProgressLine line;
  options.progress = [&](const PrepareProgress& progress) { line.show(progress); };
  const PrepareSummary summary = prepare(options);
  line.finish();
  print_file("training", summary.train_path, summary.train);
  if (!summary.validation_path.empty()) {
    print_file("validation", summary.validation_path, summary.validation);
  } else if (options.validation > 0) {
    fmt::print("validation  no document fell to it; give a greater --validation\n");
  }
  fmt::print("tokenizer   {}: {} tokens\n", summary.tokenizer_path, summary.train.vocab_size);
  if (options.deduplicate) fmt::print("duplicates  {} documents left out\n", summary.duplicates);
  fmt::print("{:.1f} MB of text in {:.1f} s\n", static_cast<double>(summary.bytes) / 1e6, summary.seconds);
  return 0;
}

}  // namespace

std::function<int()> declare_prepare(CLI::App& app) {
  struct Choices {
    PrepareOptions options;
    std::string tokenizer, train;
    bool cased = false;
  };
  auto choices = std::make_shared<Choices>();
  PrepareOptions& options = choices->options;
  const std::map<std::string, DocumentRule> documents{
      {"blank_line", DocumentRule::blank_line}, {"line", DocumentRule::line}, {"file", DocumentRule::file}};
  const std::map<std::string, SentenceRule> sentences{{"lines", SentenceRule::lines},
                                                      {"paragraphs", SentenceRule::paragraphs},
                                                      {"wrapped", SentenceRule::wrapped},
                                                      {"none", SentenceRule::none}};
  app.add_option("inputs", options.inputs,
                 "Text and JSON-lines files, also .gz and .zst, and folders of them")
      ->required();
  app.add_option("-o,--output", options.output, "Folder for train.h5, validation.h5 and tokenizer.json")
      ->required();
  auto* load =
      app.add_option("--tokenizer", choices->tokenizer, "A tokenizer.json, or the folder that holds it");
  auto* train = app.add_option("--train-tokenizer", choices->train,
                               "Train one on the inputs: wordpiece or byte_level_bpe");
  load->excludes(train);
  app.add_option("--vocab-size", options.trainer.vocab_size, "Tokens of the trained tokenizer")
      ->needs(train)
      ->capture_default_str();
  app.add_flag("--cased", choices->cased, "Keep case and accents (wordpiece)")->needs(train);
  app.add_option("--validation", options.validation, "Share of the documents for validation.h5")
      ->capture_default_str();
  app.add_flag("--deduplicate", options.deduplicate, "Leave out documents that occurred before");
  app.add_option("--documents", options.documents,
                 "What a document is in text: blank_line (between them), line, file")
      ->transform(CLI::CheckedTransformer(documents));
  app.add_option(
         "--sentences", options.sentences,
         "How sentences are found: lines (one a line), paragraphs (a line may hold several), wrapped, none")
      ->transform(CLI::CheckedTransformer(sentences));
  app.add_option("--json-field", options.json_field, "The field with the text in JSON lines")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "0 = all cores")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_flag("--overwrite", options.overwrite, "Replace files that are there already");
  return [choices]() {
    if (choices->tokenizer.empty() && choices->train.empty()) {
      throw Error("prepare: give --tokenizer PATH, or --train-tokenizer wordpiece or byte_level_bpe");
    }
    if (!choices->train.empty()) choices->options.trainer.kind = trainer_kind(choices->train);
    choices->options.trainer.lowercase = !choices->cased;
    return run_prepare(choices->options, choices->tokenizer);
  };
}

}  // namespace tessera
