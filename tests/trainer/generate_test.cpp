#include "trainer/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "recipes/error.h"
#include "trainer/models/gpt.h"

namespace tessera {
namespace {

ModelPtr small_gpt() {
  GptConfig config;
  config.num_layers = 2;
  config.hidden_size = 32;
  config.num_heads = 2;
  config.vocab_size = 50;
  config.max_positions = 24;
  config.initializer_range = 0.3;
  const ModelPtr model = make_gpt(config);
  model->initialise(3);
  return model;
}

TEST(ChooseToken, FollowsTheFilteredDistribution) {
  const at::Tensor logits = torch::tensor({0.0F, 1.0F, 2.0F, -1.0F, 1.5F});
  SamplingOptions options;
  options.top_k = 3;
  const at::Tensor expected = filter_logits(logits, {}, options).softmax(-1);
  RandomStream random(1);
  std::vector<int> counts(5);
  constexpr int draws = 20000;
  for (int i = 0; i < draws; ++i) ++counts[static_cast<size_t>(choose_token(logits, {}, options, random))];
  for (int64_t i = 0; i < 5; ++i) {
    const double p = expected[i].item<float>();
    EXPECT_NEAR(counts[static_cast<size_t>(i)] / static_cast<double>(draws), p,
                4 * std::sqrt(p * (1 - p) / draws))
        << i;
  }
}

TEST(Generate, SeedDecidesAndTheBatchDoesNot) {
  const ModelPtr model = small_gpt();
  GenerateOptions options;
  options.max_tokens = 12;
  const std::vector<std::vector<int32_t>> prompts = {{1, 2, 3}, {7}, {9, 9, 4, 5, 6}};
  const auto together = generate(*model, prompts, options);
  EXPECT_EQ(generate(*model, prompts, options), together);
  for (size_t i = 0; i < prompts.size(); ++i) {
    options.first_prompt = static_cast<int64_t>(i);
    EXPECT_EQ(generate(*model, {prompts[i]}, options).front(), together[i]) << i;
  }
  options.first_prompt = 0;
  options.seed = 2;
  EXPECT_NE(generate(*model, prompts, options), together);
}

TEST(Generate, StreamsWhatItReturns) {
  const ModelPtr model = small_gpt();
  std::vector<std::vector<int32_t>> streamed(2);
  GenerateOptions options;
  options.max_tokens = 5;
  const auto made = generate(*model, {{1}, {2, 3}}, options,
                             [&](size_t row, int32_t token) { streamed[row].push_back(token); });
  EXPECT_EQ(streamed, made);
  EXPECT_EQ(made[0].size(), 5U);
}

TEST(Generate, PromptsThatDoNotFitAreMistakes) {
  const ModelPtr model = small_gpt();
  EXPECT_THROW(generate(*model, {{1}, {}}, {}), Error);
  try {
    generate(*model, {std::vector<int32_t>(24, 1)}, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("prompt 1 has 24 tokens; the model has 24 positions"));
  }
}

TEST(TextStream, HoldsBackUnfinishedCharacters) {
  struct Bytes : Tokenizer {  // one token per byte
    void encode(std::string_view text, std::vector<int32_t>& ids) const override {
      ids.assign(text.begin(), text.end());
    }
    Encoding encode_with_offsets(std::string_view) const override { return {}; }
    std::string decode(const std::vector<int32_t>& ids, bool) const override {
      std::string text(ids.begin(), ids.end());
      const size_t lead = text.find_last_of("\xC3\xE2");
      const size_t need = lead == std::string::npos ? 0 : text[lead] == '\xC3' ? 2 : 3;
      if (need > 0 && text.size() - lead < need) text = text.substr(0, lead) + "\xEF\xBF\xBD";
      return text;
    }
    int32_t vocab_size() const override { return 256; }
    int32_t id_of(std::string_view) const override { return -1; }
    std::string token_of(int32_t) const override { return ""; }
    bool continues_word(int32_t) const override { return false; }
    const SpecialTokens& special() const override { return none; }
    std::string json() const override { return ""; }
    SpecialTokens none;
  };
  TextStream stream(std::make_shared<Bytes>());
  std::vector<std::string> parts;
  for (const char byte : std::string("aé€\xC3"))
    parts.push_back(stream.add(static_cast<unsigned char>(byte)));
  EXPECT_THAT(parts, testing::ElementsAre("a", "", "é", "", "", "€", ""));
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
}

}  // namespace
}  // namespace tessera
