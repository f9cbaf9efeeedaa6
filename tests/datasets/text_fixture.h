#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "datasets/prepare.h"
#include "datasets/token_file.h"
#include "recipes/error.h"
#include "recipes/random.h"

namespace tessera {

/// Words are "w" and a number, which is their id; everything else is unknown. Ids 0 to 4 are the special
/// tokens.
class NumberTokenizer : public Tokenizer {
 public:
  explicit NumberTokenizer(int32_t vocab_size = 1000, bool bert = true) : vocab_size_(vocab_size) {
    if (bert) {
      special_ = {.pad = 0, .unknown = 1, .cls = 2, .sep = 3, .mask = 4, .begin = -1, .end = -1};
    } else {
      special_ = {.pad = -1, .unknown = 1, .cls = -1, .sep = -1, .mask = -1, .begin = -1, .end = 0};
    }
  }
  using Tokenizer::encode;
  void encode(std::string_view text, std::vector<int32_t>& ids) const override {
    std::istringstream words{std::string(text)};
    for (std::string word; words >> word;) {
      ids.push_back(word[0] == 'w' || word[0] == 'W'
                        ? static_cast<int32_t>(std::atoll(word.c_str() + 1) % vocab_size_)
                        : 1);
    }
  }
  Encoding encode_with_offsets(std::string_view text) const override { return {encode(text), {}}; }
  std::string decode(const std::vector<int32_t>& ids, bool) const override {
    std::string text;
    for (const int32_t id : ids) text += token_of(id) + " ";
    return text;
  }
  int32_t vocab_size() const override { return vocab_size_; }
  int32_t id_of(std::string_view token) const override { return std::stoi(std::string(token.substr(1))); }
  std::string token_of(int32_t id) const override { return "w" + std::to_string(id); }
  bool continues_word(int32_t) const override { return false; }
  const SpecialTokens& special() const override { return special_; }
  std::string json() const override { return "{\"numbers\": true}"; }

 private:
  int32_t vocab_size_;
  SpecialTokens special_;
};

/// A folder of its own for each test, and short ways to fill and read files.
class InFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() /
              ("tessera-" + std::to_string(getpid()) + "-" + test->test_suite_name() + "-" + test->name());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string at(const std::string& name) const { return folder_ / name; }
  std::string write(const std::string& name, const std::string& content) const {
    std::filesystem::create_directories(std::filesystem::path(at(name)).parent_path());
    std::ofstream(at(name), std::ios::binary) << content;
    return at(name);
  }
  static std::string bytes_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  template <class Action>
  static std::string error_of(Action action) {
    try {
      action();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }

  /// Writes a token file of the given documents, each a list of sentences, each a list of ids.
  std::string token_file(const std::string& name,
                         const std::vector<std::vector<std::vector<int32_t>>>& documents,
                         const Tokenizer& tokenizer = NumberTokenizer()) const {
    TokenFileWriter writer(folder_, name, tokenizer);
    for (const auto& document : documents) {
      std::vector<int32_t> tokens;
      std::vector<uint32_t> starts;
      for (const auto& sentence : document) {
        starts.push_back(static_cast<uint32_t>(tokens.size()));
        tokens.insert(tokens.end(), sentence.begin(), sentence.end());
      }
      writer.append(tokens, starts);
    }
    writer.finish();
    return at(name + ".h5");
  }

  std::filesystem::path folder_;
};

}  // namespace tessera
