#include "trainer/generate.h"

#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "launch/commands.h"
#include "launch/model_options.h"
#include "recipes/error.h"

namespace tessera {
namespace {

struct GenerateArguments {
  std::shared_ptr<ModelOptions> model;
  std::string file;
  std::vector<std::string> prompts;
  GenerateOptions generate;
  int64_t batch = 8, best = 5;
  bool greedy = false, json = false;
};

std::vector<std::string> read_lines(const std::string& path) {
  std::ifstream file;
  if (path != "-") {
    file.open(path);
    if (!file) throw Error(path + ": cannot be read");
  }
  std::istream& in = path == "-" ? std::cin : file;
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

void put(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

/// A prompt as the model reads it; never empty where the tokenizer has a token to start from.
std::vector<int32_t> with_begin(const TrainedModel& trained, const std::string& prompt) {
  const SpecialTokens& special = trained.tokenizer->special();
  std::vector<int32_t> tokens = trained.tokenizer->encode(prompt);
  // Documents follow an end token in training, so it is where a text from nothing starts.
  if (tokens.empty() && special.end >= 0) tokens.push_back(special.begin >= 0 ? special.begin : special.end);
  return tokens;
}

void stream_one(const TrainedModel& trained, const GenerateArguments& options) {
  TextStream text(trained.tokenizer);
  std::string unsaid = options.prompts.front();  // until it is known to be one that can be continued
  generate(*trained.model, {with_begin(trained, unsaid)}, options.generate, [&](size_t, int32_t token) {
    put(unsaid + text.add(token));
    unsaid.clear();
  });
  put(unsaid + text.finish() + "\n");
}

void generate_all(const TrainedModel& trained, const GenerateArguments& options) {
  const auto total = static_cast<int64_t>(options.prompts.size());
  for (int64_t first = 0; first < total; first += options.batch) {
    std::vector<std::vector<int32_t>> prompts;
    for (int64_t i = first; i < std::min(total, first + options.batch); ++i) {
      prompts.push_back(with_begin(trained, options.prompts[static_cast<size_t>(i)]));
    }
    GenerateOptions how = options.generate;
    how.first_prompt = first;
    const auto made = generate(*trained.model, prompts, how);
    for (size_t i = 0; i < made.size(); ++i) {
      const std::string& prompt = options.prompts[static_cast<size_t>(first) + i];
      const std::string text = trained.tokenizer->decode(made[i]);
      put(options.json ? nlohmann::json{{"prompt", prompt}, {"text", text}, {"tokens", made[i]}}.dump() + "\n"
                       : prompt + text + "\n");
    }
  }
}

void fill(const TrainedModel& trained, const GenerateArguments& options, const std::string& prompt) {
  const Tokenizer& tokenizer = *trained.tokenizer;
  const SpecialTokens& special = tokenizer.special();
  std::vector<int32_t> tokens{special.cls};
  tokenizer.encode(prompt, tokens);
  tokens.push_back(special.sep);
  const auto guesses = fill_mask(*trained.model, tokens, special.mask, options.best);
  for (size_t i = 0; i < guesses.size(); ++i) {
    nlohmann::json row = {{"prompt", prompt}, {"mask", i}, {"guesses", nlohmann::json::array()}};
    if (!options.json) put(fmt::format("{} ({} {})\n", prompt, tokenizer.token_of(special.mask), i + 1));
    for (const auto& [token, probability] : guesses[i]) {
      if (!options.json) put(fmt::format("  {:6.2f} %  {}\n", 100 * probability, tokenizer.token_of(token)));
      row["guesses"].push_back(
          {{"token", tokenizer.token_of(token)}, {"id", token}, {"probability", probability}});
    }
    if (options.json) put(row.dump() + "\n");
  }
}

int run_generate(GenerateArguments options) {
  if (!options.file.empty()) {
    for (auto& line : read_lines(options.file)) options.prompts.push_back(std::move(line));
  }
  if (options.prompts.empty())
    throw Error("nothing to continue: give --prompt TEXT or --file PATH (- for standard input)");
  if (options.greedy) options.generate.sampling.temperature = 0;
  const TrainedModel trained = options.model->open();
  const SpecialTokens& special = trained.tokenizer->special();
  options.generate.end = special.end;
  if (!trained.objective->heads().vocabulary) {
    throw Error(
        fmt::format("{}: trained for {}, this model writes no text; tessera evaluate tells what it says",
                    trained.checkpoint, trained.recipe.objective.name()));
  }
  if (trained.model->causal()) {
    options.prompts.size() == 1 && !options.json ? stream_one(trained, options)
                                                 : generate_all(trained, options);
    return 0;
  }
  for (const auto& prompt : options.prompts) {
    if (special.mask < 0 || prompt.find(trained.tokenizer->token_of(special.mask)) == std::string::npos) {
      throw Error(fmt::format("\"{}\": this model fills in blanks; write {} where one is", prompt,
                              trained.tokenizer->token_of(special.mask)));
    }
    fill(trained, options, prompt);
  }
  return 0;
}

}  // namespace

std::function<int()> declare_generate(CLI::App& app) {
  auto options = std::make_shared<GenerateArguments>();
  auto& how = options->generate;
  auto& sampling = how.sampling;
  options->model = add_model_options(app);
  add_device_option(app, *options->model);
  app.add_option("-p,--prompt", options->prompts, "What to continue, or a text with [MASK]; may be repeated")
      ->type_size(1)
      ->allow_extra_args(false);
  app.add_option("-f,--file", options->file, "Prompts from a file's lines; - for standard input");
  app.add_option("-n,--max-tokens", how.max_tokens, "New tokens per prompt at most")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--greedy", options->greedy, "Always the likeliest token (as --temperature 0)");
  app.add_option("--temperature", sampling.temperature, "Below 1 more likely tokens, above 1 wilder ones")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--top-k", sampling.top_k, "Draw from the k likeliest tokens only; 0: from all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--top-p", sampling.top_p,
                 "Draw from the likeliest tokens that together have this probability")
      ->check(CLI::Range(1e-9, 1.0))
      ->capture_default_str();
  app.add_option("--repetition-penalty", sampling.repetition_penalty,
                 "Above 1: tokens seen before become less likely")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--seed", how.seed, "The same seed draws the same text")->capture_default_str();
  app.add_option("--batch", options->batch, "Prompts computed at a time")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_option("--best", options->best, "Guesses per [MASK]")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  app.add_flag("--json", options->json, "A line of JSON per prompt or mask");
  return [options] { return run_generate(*options); };
}

}  // namespace tessera
