// tessera inspect: what is in a checkpoint, a dataset or a run, and whether it is whole.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "datasets/open.h"
#include "launch/commands.h"
#include "recipes/error.h"
#include "trainer/checkpoint.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

struct InspectArguments {
  std::string path;
  bool verify = false, all = false;
};

template <typename... Values>
void say(fmt::format_string<Values...> text, Values&&... values) {
  std::puts(fmt::format(text, std::forward<Values>(values)...).c_str());
}

std::string size_text(int64_t bytes) {
  const char* units[] = {"bytes", "kB", "MB", "GB", "TB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1000 && unit < 4; ++unit) value /= 1000;
  return fmt::format("{:.{}f} {}", value, unit ? 1 : 0, units[unit]);
}

std::string indented(const std::string& text) {
  std::string result = "  ";
  for (const char c : text) result += c == '\n' ? std::string("\n  ") : std::string(1, c);
  return result.substr(0, result.find_last_not_of(" \n") + 1);
}

void say_facts(const CheckpointReader& reader) {
  const auto& meta = reader.meta();
  say("checkpoint {}", reader.folder());
  say("  step {}, {} samples, seed {}, written by Tessera {}", meta.step, meta.samples, meta.seed,
      meta.version);
  if (meta.score) say("  validation loss {:.6g}", *meta.score);
  if (!meta.layout.empty()) say("  layout {}", meta.layout);
  say("  {} in {} shards; tokenizer: {}", size_text(reader.bytes()), reader.num_shards(),
      meta.tokenizer.empty() ? "none" : size_text(static_cast<int64_t>(meta.tokenizer.size())));
  say("recipe\n{}", indented(meta.recipe));
  say("state\n{}", indented(meta.state_json));
}

/// Every tensor of the model; of the rest a line for each group, or every tensor too.
void say_tensors(const CheckpointReader& reader, bool all) {
  struct Total {
    int64_t tensors = 0, elements = 0, bytes = 0;
  };
  std::map<std::string, Total> groups;
  say("tensors");
  for (const auto& [name, info] : reader.tensors()) {
    std::string group = name.substr(0, name.find('/'));
    if (group == "optimizer") group = name.substr(0, name.find('/', group.size() + 1));
    auto& total = groups[group];
    total.tensors += 1, total.bytes += info.bytes();
    total.elements += info.bytes() / static_cast<int64_t>(hdf5::size_of(info.type));
    if (!all && group != "model") continue;
    say("  {:<64} {:<4} {:>20} {:>10}", name, hdf5::name_of(info.type),
        fmt::format("[{}]", fmt::join(info.shape, ", ")), size_text(info.bytes()));
  }
  say("totals");
  for (const auto& [group, total] : groups) {
    say("  {:<30} {:>6} tensors {:>14} elements {:>10}", group, total.tensors, total.elements,
        size_text(total.bytes));
  }
}

int inspect_checkpoint(const InspectArguments& options) {
  const auto reader = CheckpointReader::open(options.path);
  say_facts(reader);
  say_tensors(reader, options.all);
  if (!options.verify) return 0;
  const auto problems = reader.verify();
  if (!problems.empty()) throw Error(join(problems, "\n"));
  say("verified: all checksums match");
  return 0;
}

/// Type of tokenizer.json's model.
std::string kind_of(const std::string& tokenizer_json) {
  const auto tokenizer = nlohmann::json::parse(tokenizer_json, nullptr, false);
  const bool known = tokenizer.is_object() && tokenizer.contains("model") && tokenizer["model"].is_object();
  return known ? tokenizer["model"].value("type", "unknown") : "none";
}

void inspect_data(const std::string& path, bool verify) {
  const auto facts = describe_dataset({path}, verify);
  say("{} {} ({} file{})", facts.kind, path, facts.num_files, facts.num_files == 1 ? "" : "s");
  if (facts.num_examples) say("  {} examples", facts.num_examples);
  if (facts.sequence_length) say("  sequences of {} tokens", facts.sequence_length);
  if (facts.num_tokens) {
    say("  {} tokens, {} documents, {} sentences", facts.num_tokens, facts.num_documents,
        facts.num_sentences);
    say("  unigram entropy {:.4f} nats per token (perplexity {:.1f})", facts.unigram_entropy,
        std::exp(facts.unigram_entropy));
  }
  say("  tokenizer {}{}", kind_of(facts.tokenizer_json),
      facts.vocab_size ? fmt::format(", vocabulary of {}", facts.vocab_size) : "");
  if (verify) say("verified: all of it reads and agrees with its checksums, where it has any");
}

/// The last value of each quantity, with the step it is of.
void say_metrics(const std::string& path) {
  std::ifstream file(path);
  std::map<std::string, std::pair<std::string, std::string>> last;
  std::string line;
  int64_t lines = 0;
  while (std::getline(file, line)) {
    const auto entry = nlohmann::json::parse(line, nullptr, false);
    if (!entry.is_object()) continue;  // a line cut off by a kill
    ++lines;
    const std::string step = entry.contains("step") ? entry["step"].dump() : "?";
    for (const auto& [key, value] : entry.items()) {
      if (key != "step") last[key] = {value.dump(), step};
    }
  }
  if (last.empty()) return;
  say("last metrics ({} lines)", lines);
  for (const auto& [key, value] : last) say("  {:<32} {:>20}  at step {}", key, value.first, value.second);
}

int inspect_run(const InspectArguments& options, const std::string& checkpoints) {
  say("run {}", options.path);
  if (fs::exists(options.path + "/metrics.jsonl")) say_metrics(options.path + "/metrics.jsonl");
  const auto steps = list_checkpoints(checkpoints);
  say("checkpoints ({})", steps.size());
  std::vector<std::string> damaged;
  for (const auto& path : steps) {
    try {
      const auto reader = CheckpointReader::open(path);
      const auto problems = options.verify ? reader.verify() : std::vector<std::string>();
      if (!problems.empty()) throw Error(join(problems, "\n"));
      const auto score = reader.meta().score;
      say("  {:<16} {:>10}  {}{}", fs::path(path).filename().string(), size_text(reader.bytes()),
          score ? fmt::format("validation loss {:.6g}", *score) : "", options.verify ? "  verified" : "");
    } catch (const Error& error) {
      damaged.push_back(error.what());
    }
  }
  if (!damaged.empty()) throw Error(join(damaged, "\n"));
  return 0;
}

int inspect(InspectArguments options) {
  while (options.path.size() > 1 && options.path.back() == '/') options.path.pop_back();
  const auto has = [&](const char* name) { return fs::exists(fs::path(options.path) / name); };
  if (!fs::exists(options.path)) throw Error(options.path + ": no such file or folder");
  if (fs::path(options.path).filename() == "checkpoint.h5" || has("checkpoint.h5"))
    return inspect_checkpoint(options);
  if (!fs::is_directory(options.path)) return inspect_data(options.path, options.verify), 0;
  if (has("metrics.jsonl") || has("checkpoints")) return inspect_run(options, options.path + "/checkpoints");
  if (!list_checkpoints(options.path).empty()) return inspect_run(options, options.path);
  bool found = false;
  for (const char* name : {"train.h5", "validation.h5"}) {
    if (!has(name)) continue;
    found = true;
    inspect_data(options.path + "/" + name, options.verify);
  }
  if (found) return 0;
  for (const auto& entry : fs::directory_iterator(options.path)) found |= entry.path().extension() == ".h5";
  if (!found) return inspect_checkpoint(options);  // which says what is there instead
  return inspect_data(options.path, options.verify), 0;
}

}  // namespace

std::function<int()> declare_inspect(CLI::App& app) {
  auto options = std::make_shared<InspectArguments>();
  app.add_option("path", options->path, "A checkpoint, a dataset (file or folder) or a run's folder")
      ->required();
  app.add_flag("--verify", options->verify, "Read everything and compare all checksums");
  app.add_flag("--all", options->all, "List the tensors of optimizer and averages too");
  return [options] { return inspect(*options); };
}

}  // namespace tessera
