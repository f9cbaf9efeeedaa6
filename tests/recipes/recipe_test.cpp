#include "recipes/recipe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/recipes/fake_catalog.h"

namespace tessera {
namespace {

using fake::catalog;
using fake::good;

Recipe read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  return read_recipe_text(text, "r.yaml", overrides, catalog());
}

TEST(Recipe, ReadsEverySection) {
  const Recipe recipe = read(good);
  EXPECT_EQ(recipe.run.folder, "runs/test");
  EXPECT_EQ(recipe.run.resume, "auto");
  EXPECT_EQ(recipe.model.name(), "bert");
  EXPECT_EQ(recipe.model.as<fake::Bert>().hidden_size, 256);
  EXPECT_EQ(recipe.data.train.sources.at(0).path, "data/train.h5");
  EXPECT_EQ(recipe.data.validation, std::nullopt);
  EXPECT_DOUBLE_EQ(recipe.optimizer.as<fake::AdamW>().learning_rate, 5e-4);
  EXPECT_EQ(recipe.schedule.as<fake::Linear>().warm_up, (StepsOrPercent{5, true}));
  EXPECT_EQ(recipe.train.steps, 2000);
  EXPECT_EQ(recipe.train.precision, Precision::fp32);
  EXPECT_EQ(recipe.parallel.bucket_megabytes, 25);
}

TEST(Recipe, DumpsWhatItReads) {
  Recipe recipe =
      read(good, {"data.train=[{path: 'a: b.h5', weight: 2}, {path: c.h5}]", "train.precision=bf16"});
  const std::string text = dump(recipe, catalog());
  const Recipe again = read(text);
  EXPECT_EQ(dump(again, catalog()), text);
  EXPECT_EQ(again.data.train.sources.at(0).path, "a: b.h5");
  EXPECT_EQ(again.data.train.sources.at(0).weight, 2);
  EXPECT_EQ(again.train.precision, Precision::bf16);
  EXPECT_THAT(differences(recipe, again, catalog()), testing::IsEmpty());
  EXPECT_THAT(text, testing::HasSubstr("  warm_up: 5%\n"));
  EXPECT_THAT(text, testing::HasSubstr("model:\n  family: bert\n  num_layers: 4\n"));
  EXPECT_THAT(text, testing::HasSubstr("  epochs: null\n"));
}

TEST(Recipe, TellsWhatDiffers) {
  const Recipe before = read(good);
  const Recipe after =
      read(good, {"train.steps=3000", "model.num_layers=6", "optimizer={name: sgd, learning_rate: 0.1}"});
  std::vector<std::string> lines;
  for (const auto& difference : differences(before, after, catalog())) {
    lines.push_back(difference.text() + (difference.changeable ? " (harmless)" : ""));
  }
  EXPECT_THAT(lines, testing::ElementsAre("model.num_layers: 4 -> 6", "optimizer.name: adamw -> sgd",
                                          "optimizer.learning_rate: 0.0005 -> 0.1 (harmless)",
                                          "optimizer.beta2: 0.999 ->  (harmless)",
                                          "train.steps: 2000 -> 3000 (harmless)",
                                          "optimizer.momentum:  -> 0.9 (harmless)"));
}

TEST(Recipe, TellsWhatASecondPhaseMayChange) {
  const Recipe before = read(good);
  const Recipe after =
      read(good, {"data.sequence_length=64", "model.num_layers=2", "objective.mask_probability=0.2"});
  const auto found = differences(before, after, catalog());
  ASSERT_EQ(found.size(), 3);
  EXPECT_FALSE(found[0].changeable || found[0].new_phase) << found[0].text();  // model
  EXPECT_TRUE(!found[1].changeable && found[1].new_phase) << found[1].text();  // objective
  EXPECT_TRUE(!found[2].changeable && found[2].new_phase) << found[2].text();  // data
}

TEST(Recipe, KnowsPlacesLater) {
  const Recipe recipe = read(good, {"data.validation=v.h5"});
  EXPECT_STREQ(recipe.error("data.train", "no such file").what(), "r.yaml:5:10 data.train: no such file");
  EXPECT_STREQ(recipe.error("data.validation", "no such file").what(),
               "command line data.validation=v.h5: no such file");
  EXPECT_STREQ(recipe.error("data.tokenizer", "none").what(), "r.yaml:4:1 data.tokenizer: none");
}

TEST(Recipe, ChoicesAreValues) {
  Recipe recipe = read(good);
  Recipe copy = recipe;
  copy.model.get_if<fake::Bert>()->num_layers = 7;
  EXPECT_EQ(recipe.model.as<fake::Bert>().num_layers, 4);
  EXPECT_EQ(copy.model.integer("num_layers"), 7);
  EXPECT_EQ(copy.model.get_if<fake::Gpt>(), nullptr);
  EXPECT_EQ(copy.model.integer("dropout"), std::nullopt);
  EXPECT_THROW(copy.model.as<fake::Gpt>(), std::logic_error);
}

TEST(Recipe, FitsRanks) {
  const Recipe recipe = read(good);
  const BatchArithmetic batch = batch_arithmetic(read(good, {"train.micro_batch=8"}), 4);
  EXPECT_EQ(batch.accumulation, 2);
  EXPECT_NO_THROW(check_ranks(recipe, 2));
  try {
    check_ranks(recipe, 3);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(
        error.what(),
        "r.yaml:11:17 train.global_batch: 64 is not divisible by 3 ranks x micro_batch 32 = 96; valid: "
        "global_batch 96, or 2 ranks");
  }
  try {
    check_ranks(recipe, 4);
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(
        error.what(),
        "r.yaml:11:17 train.global_batch: 64 is not divisible by 4 ranks x micro_batch 32 = 128; valid: "
        "global_batch 128, or micro_batch 16, or 2 ranks");
  }
}

TEST(Recipe, ReadsPercentAndSteps) {
  EXPECT_EQ((StepsOrPercent{5, true}).steps(2000), 100);
  EXPECT_EQ((StepsOrPercent{250, false}).steps(2000), 250);
  const Recipe recipe = read(good, {"schedule.warm_up=12.5%"});
  EXPECT_EQ(recipe.schedule.as<fake::Linear>().warm_up.steps(1000), 125);
}

TEST(Recipe, AliasesAndMergeKeysWork) {
  const Recipe recipe = read(
      "run: {folder: &name runs/a}\ndata: {train: *name, sequence_length: 16}\nmodel: {family: bert}\n"
      "objective: {name: mlm}\noptimizer: &o {name: adamw, learning_rate: 1}\nschedule: {name: constant}\n"
      "train: {<<: {steps: 5, micro_batch: 1}, global_batch: 1, steps: 7}\n");
  EXPECT_EQ(recipe.data.train.sources.at(0).path, "runs/a");
  EXPECT_EQ(recipe.train.steps, 7);
  EXPECT_EQ(recipe.train.micro_batch, 1);
}

TEST(Recipe, AnotherChoiceDropsTheKeysOfTheFirst) {
  const Recipe recipe = read(fake::good + "", {"optimizer.beta2=0.95", "optimizer.name=adamw"});
  EXPECT_EQ(recipe.optimizer.as<fake::AdamW>().beta2, 0.95);
  const Recipe other = read(good, {"schedule.name=constant"});  // the file's warm_up belongs to linear
  EXPECT_EQ(other.schedule.name(), "constant");
  EXPECT_THROW(read(good, {"schedule.name=constant", "schedule.warm_up=5%"}), Error);
}

TEST(Recipe, ReferenceNamesEveryKey) {
  const std::string text = reference(catalog());
  EXPECT_THAT(text, testing::HasSubstr("## train: length, batch and numerics\n"));
  EXPECT_THAT(text, testing::HasSubstr("### `optimizer: {name: sgd}`\n\nSGD\n"));
  EXPECT_THAT(
      text, testing::HasSubstr("| `num_layers` | whole number from 1 to 1000 | `12` | number of layers |\n"));
  EXPECT_THAT(text, testing::HasSubstr("| `global_batch` | whole number, at least 1 | required |"));
}

}  // namespace
}  // namespace tessera
