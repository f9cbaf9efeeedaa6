// The recipes that ship, and their reference, against the real catalog.
#include <gtest/gtest.h>

#include "launch/model_facts.h"
#include "launch/shipped_recipes.h"
#include "trainer/catalog.h"

namespace tessera {
namespace {

/// Fine-tuning starts from folders that other commands make: here any of them holds a standard model.
Recipe shipped(const std::string& name, const std::vector<std::string>& overrides = {}) {
  Catalog with_models = catalog();
  with_models.model_in = [&](const std::string&) {
    return Choice(*catalog().model.find(name.substr(0, name.find('/'))));
  };
  return read_recipe(find_shipped_recipe(name), overrides, with_models);
}

TEST(ShippedRecipes, AreAllValid) {
  const auto names = shipped_recipe_names();
  EXPECT_GE(names.size(), 10);
  for (const auto& name : names) {
    const std::string path = find_shipped_recipe(name);
    EXPECT_NO_THROW({ EXPECT_EQ(batch_arithmetic(shipped(name), 1).replicas, 1); }) << name;
    EXPECT_FALSE(recipe_summary(path).empty()) << name;
  }
}

TEST(ShippedRecipes, MinisRunOnOneAndTwoRanks) {
  for (const char* name : {"bert/pretrain-mini", "gpt/pretrain-mini"}) {
    EXPECT_NO_THROW(check_ranks(shipped(name), 1));
    EXPECT_NO_THROW(check_ranks(shipped(name), 2));
  }
}

TEST(ShippedRecipes, DumpsReadBack) {
  for (const auto& name : shipped_recipe_names()) {
    const Recipe recipe = shipped(name);
    const std::string text = dump(recipe, catalog());
    EXPECT_EQ(dump(read_recipe_text(text, "dump", {}, catalog()), catalog()), text) << name;
  }
}

TEST(ShippedRecipes, ASecondPhaseMayFollowTheFirst) {
  for (const std::string size : {"base", "large"}) {
    const Recipe first = shipped("bert/pretrain-" + size), second = shipped("bert/pretrain-" + size + "-512");
    EXPECT_EQ(second.run.resume, first.run.folder);
    for (const auto& difference : differences(first, second, catalog())) {
      EXPECT_TRUE(difference.new_phase) << difference.text();
    }
  }
}

// As transformers counts them: BertForPreTraining and GPT2LMHeadModel with tied heads, OpenAIGPTLMHeadModel.
TEST(ShippedRecipes, HaveThePublishedSizes) {
  const std::vector<std::pair<std::string, int64_t>> sizes = {
      {"bert/pretrain-base", 110'106'428},  {"bert/pretrain-large", 336'226'108},
      {"gpt/pretrain-124m", 124'439'808},   {"gpt/pretrain-350m", 354'823'168},
      {"gpt/pretrain-1.5b", 1'557'611'200}, {"gpt/pretrain-gpt1", 116'534'784}};
  for (const auto& [name, size] : sizes) {
    const ModelFacts parts = look_at_model(shipped(name), 0);
    EXPECT_EQ(parts.total, size) << name;
    int64_t sum = 0;
    for (const auto& part : parts.parts) sum += part.parameters;
    EXPECT_EQ(sum, size) << name;
  }
}

TEST(ModelFacts, AsksTheOptimizerForItsState) {
  const auto ratio = [](const std::string& optimizer) {
    const ModelFacts parts = look_at_model(shipped("gpt/pretrain-mini", {"optimizer=" + optimizer}), 100);
    return static_cast<double>(parts.optimizer_state) / static_cast<double>(parts.total);
  };
  EXPECT_EQ(ratio("{name: adamw}"), 2);
  EXPECT_EQ(ratio("{name: sgd, momentum: 0.9}"), 1);
  EXPECT_EQ(ratio("{name: sgd, momentum: 0}"), 0);
}

TEST(Reference, IsCurrent) {
  EXPECT_EQ(read_whole("docs/recipes.md"), reference(catalog()))
      << "build/release/tessera recipes reference > docs/recipes.md";
}

}  // namespace
}  // namespace tessera
