// Drives the tokenizers for tests and benchmarks. usage, texts in hexadecimal and results one a line:
//   tool_tokenizer encode FILE < texts          ids by the fast path | ids | begin:end …
//   tool_tokenizer decode FILE 0|1 < ids        the text, in hexadecimal; 1 skips special tokens
//   tool_tokenizer json FILE
//   tool_tokenizer train wordpiece|byte_level_bpe TEXT VOCAB_SIZE MIN_FREQUENCY LOWERCASE     tokenizer.json;
//   counts by line tool_tokenizer bench FILE TEXT THREADS SECONDS
#include "datasets/tokenizer.h"

#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iostream>
#include <numeric>
#include <sstream>
#include <thread>

#include "datasets/tokenizer/train.h"
#include "recipes/error.h"

namespace {

using tessera::Tokenizer;
using tessera::TokenizerPtr;

std::string from_hexadecimal(const std::string& line) {
  std::string bytes;
  for (size_t i = 0; i + 1 < line.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(line.substr(i, 2), nullptr, 16)));
  return bytes;
}

std::string to_hexadecimal(const std::string& bytes) {
  static const char* digits = "0123456789abcdef";
  std::string line;
  for (const char b : bytes) {
    line.push_back(digits[static_cast<unsigned char>(b) >> 4]);
    line.push_back(digits[b & 15]);
  }
  return line;
}

void encode(const Tokenizer& tokenizer) {
  for (std::string line; std::getline(std::cin, line);) {
    const std::string text = from_hexadecimal(line);
    const tessera::Encoding encoding = tokenizer.encode_with_offsets(text);
    for (const int32_t id : tokenizer.encode(text)) std::cout << id << ' ';
    std::cout << '|';
    for (const int32_t id : encoding.ids) std::cout << id << ' ';
    std::cout << '|';
    for (const auto& [begin, end] : encoding.offsets) std::cout << begin << ':' << end << ' ';
    std::cout << '\n';
  }
}

void decode(const Tokenizer& tokenizer, bool skip_special) {
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream in(line);
    std::vector<int32_t> ids;
    for (int32_t id; in >> id;) ids.push_back(id);
    std::cout << to_hexadecimal(tokenizer.decode(ids, skip_special)) << '\n';
  }
}

std::vector<std::string> lines_of(const char* path) {
  std::ifstream in(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

/// Prints for each round over all lines of the text, which the threads share: MB/s, MB per second of
/// processor time, tokens. Until the given time is over.
void bench(const Tokenizer& tokenizer, const char* path, int num_threads, double seconds) {
  using Clock = std::chrono::steady_clock;
  const std::vector<std::string> lines = lines_of(path);
  size_t bytes = 0;
  for (const auto& line : lines) bytes += line.size();
  std::vector<size_t> tokens(num_threads);
  const auto work = [&](int rank) {
    std::vector<std::vector<int32_t>> all;
    for (size_t i = lines.size() * rank / num_threads; i < lines.size() * (rank + 1) / num_threads; ++i) {
      all.push_back(tokenizer.encode(lines[i]));
      tokens[rank] += all.back().size();
    }
  };
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  do {
    tokens.assign(num_threads, 0);
    const auto begin = Clock::now();
    const std::clock_t processor = std::clock();
    std::vector<std::thread> threads;
    for (int rank = 1; rank < num_threads; ++rank) threads.emplace_back(work, rank);
    work(0);
    for (auto& thread : threads) thread.join();
    const double taken = std::chrono::duration<double>(Clock::now() - begin).count();
    const double busy = static_cast<double>(std::clock() - processor) / CLOCKS_PER_SEC;
    const double megabytes = static_cast<double>(bytes) / 1e6;
    std::printf("%.3f %.3f %zu\n", megabytes / taken, megabytes / busy,
                std::accumulate(tokens.begin(), tokens.end(), size_t{0}));
  } while (Clock::now() < end);
}

/// Counts in two parts that are merged, as several threads would.
void train(const std::vector<std::string>& arguments) {
  tessera::TrainerOptions options;
  if (arguments.size() < 6) throw tessera::Error("train: too few arguments");
  options.kind = tessera::trainer_kind(arguments.at(1));
  options.vocab_size = std::stoll(arguments.at(3));
  options.min_frequency = std::stoll(arguments.at(4));
  options.lowercase = arguments.at(5) == "1";
  options.special_tokens.assign(arguments.begin() + 6, arguments.end());
  tessera::WordCounter odd(options), even(options);
  bool is_odd = false;
  for (const std::string& line : lines_of(arguments.at(2).c_str()))
    ((is_odd = !is_odd) ? odd : even).add(line);
  even.merge(std::move(odd));
  std::cout << tessera::train(options, even)->json();
}

int run(const std::vector<std::string>& arguments) {
  if (arguments.size() < 2) return 2;
  const std::string& verb = arguments[0];
  if (verb == "train") {
    train(arguments);
    return 0;
  }
  const TokenizerPtr tokenizer = Tokenizer::load(arguments[1]);
  if (verb == "encode") encode(*tokenizer);
  if (verb == "decode") decode(*tokenizer, arguments.at(2) == "1");
  if (verb == "json") std::cout << tokenizer->json();
  if (verb == "bench")
    bench(*tokenizer, arguments.at(2).c_str(), std::stoi(arguments.at(3)), std::stod(arguments.at(4)));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  try {
    return run({argv + 1, argv + argc});
  } catch (const tessera::Error& e) {
    std::cerr << e.what() << '\n';
    return 2;
  }
}
