// Recipes as files: what cannot be read, and what includes something.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/recipes/fake_catalog.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

class Layers : public testing::Test {
 protected:
  Layers() {
    std::string name = (fs::temp_directory_path() / "tessera-layers-XXXXXX").string();
    folder = mkdtemp(name.data());
  }
  ~Layers() override { fs::remove_all(folder); }

  std::string write(const std::string& name, const std::string& text) const {
    fs::create_directories((folder / name).parent_path());
    std::ofstream(folder / name) << text;
    return (folder / name).string();
  }
  Recipe read(const std::string& name) const {
    return read_recipe((folder / name).string(), {}, fake::catalog());
  }

  /// The message, with the test's folder taken out.
  std::string message(const std::string& name) const {
    try {
      read(name);
    } catch (const Error& error) {
      std::string text = error.what();
      for (size_t at; (at = text.find(folder.string() + "/")) != std::string::npos;) {
        text.erase(at, folder.string().size() + 1);
      }
      return text;
    }
    return "no error";
  }

  fs::path folder;
};

TEST_F(Layers, TheIncluderWins) {
  write("base.yaml", fake::good);
  write("large/child.yaml",
        "include: ../base.yaml\nmodel: {num_layers: 24}\ntrain: {global_batch: 128}\nrun: {folder: "
        "runs/large}\n");
  const Recipe recipe = read("large/child.yaml");
  EXPECT_EQ(recipe.model.as<fake::Bert>().num_layers, 24);
  EXPECT_EQ(recipe.model.as<fake::Bert>().hidden_size, 256);
  EXPECT_EQ(recipe.train.global_batch, 128);
  EXPECT_EQ(recipe.train.steps, 2000);
}

TEST_F(Layers, LaterIncludesWin) {
  write("base.yaml", fake::good);
  write("fast.yaml", "train: {steps: 10}\n");
  write("wide.yaml", "train: {steps: 20, precision: bf16}\n");
  write("child.yaml", "include: [base.yaml, wide.yaml, fast.yaml]\n");
  EXPECT_EQ(read("child.yaml").train.steps, 10);
  EXPECT_EQ(read("child.yaml").train.precision, Precision::bf16);
}

TEST_F(Layers, AnotherLengthTakesTheFirstBack) {
  write("base.yaml", fake::good);
  write("child.yaml", "include: base.yaml\ntrain: {steps: null, epochs: 4}\n");
  EXPECT_EQ(read("child.yaml").train.steps, std::nullopt);
  EXPECT_EQ(read("child.yaml").train.epochs, 4);
}

TEST_F(Layers, AnotherChoiceDropsTheKeysOfTheIncluded) {
  write("base.yaml", fake::good);
  write("child.yaml",
        "include: base.yaml\nschedule: {name: constant}\noptimizer: {name: sgd, momentum: 0.5}\n");
  const Recipe recipe = read("child.yaml");
  EXPECT_EQ(recipe.schedule.name(), "constant");
  EXPECT_EQ(recipe.optimizer.as<fake::Sgd>().momentum, 0.5);
  EXPECT_EQ(recipe.optimizer.as<fake::Sgd>().learning_rate, 5e-4);  // both have it: it stays
}

TEST_F(Layers, ProblemsNameTheirFile) {
  write("base.yaml", fake::good + "  clip: -1\n");
  write("child.yaml", "include: base.yaml\nmodel: {num_heads: 3}\ntrain: {micro_batch: many}\n");
  EXPECT_EQ(
      message("child.yaml"),
      "base.yaml:2:51 model.hidden_size: is not divisible by num_heads\n"
      "base.yaml:13:9 train.clip: -1 is out of range; valid: number, at least 0\n"
      "child.yaml:3:22 train.micro_batch: 'many' is not a whole number; valid: whole number, at least 1");
}

TEST_F(Layers, MissingKeysAreTheIncludersProblem) {
  write("base.yaml", "run: {folder: a}\ntrain: {steps: 5}\n");
  write("child.yaml", "include: base.yaml\n\ntrain: {global_batch: 1}\n");
  EXPECT_THAT(message("child.yaml"), testing::HasSubstr("child.yaml:3:1 train.micro_batch: missing"));
  EXPECT_THAT(message("child.yaml"), testing::HasSubstr("child.yaml:1:1 model.family: missing"));
}

TEST_F(Layers, IncludesThatCannotBe) {
  write("base.yaml", fake::good);
  write("absent.yaml", "include: bse.yaml\n");
  EXPECT_EQ(message("absent.yaml"),
            "absent.yaml:1:10 include: 'bse.yaml' cannot be read: No such file or directory; did you mean "
            "'base.yaml'?");
  write("map.yaml", "include: {a: b}\n");
  EXPECT_EQ(message("map.yaml"),
            "map.yaml:1:10 include: a section is not a file's name; valid: path, or list of paths");
  write("broken.yaml", "train: [\n");
  write("of-broken.yaml", "include: broken.yaml\n");
  EXPECT_EQ(message("of-broken.yaml"), "broken.yaml:2:1: not valid YAML: a '[' is not closed");
}

TEST_F(Layers, CirclesAreRefused) {
  write("a.yaml", "include: b.yaml\n");
  write("b.yaml", "include: ./c.yaml\n");
  write("c.yaml", "include: a.yaml\n");
  EXPECT_EQ(message("a.yaml"),
            "c.yaml:1:10 include: these files include each other: a.yaml -> b.yaml -> c.yaml -> a.yaml");
  write("self.yaml", "include: self.yaml\n");
  EXPECT_EQ(message("self.yaml"),
            "self.yaml:1:10 include: these files include each other: self.yaml -> self.yaml");
}

TEST_F(Layers, ADiamondIsNoCircle) {
  write("base.yaml", fake::good);
  write("left.yaml", "include: base.yaml\ntrain: {steps: 1}\n");
  write("right.yaml", "include: base.yaml\ntrain: {clip: 1}\n");
  write("child.yaml", "include: [left.yaml, right.yaml]\n");
  EXPECT_EQ(read("child.yaml").train.steps, 2000);  // right brought the base's again
  EXPECT_EQ(read("child.yaml").train.clip, 1);
}

TEST_F(Layers, FilesThatCannotBeRead) {
  write("good.yaml", fake::good);
  EXPECT_EQ(message("godo.yaml"),
            "godo.yaml: cannot be read: No such file or directory; did you mean 'good.yaml'?");
  EXPECT_EQ(message("nowhere/else.yaml"), "nowhere/else.yaml: cannot be read: No such file or directory");
  write("folder/b.yaml", "");
  write("folder/a.yaml", "");
  EXPECT_EQ(message("folder"), "folder: is a folder; valid: one of its files a.yaml, b.yaml");
  write("huge.yaml", std::string(2 << 20, ' '));
  EXPECT_EQ(message("huge.yaml"), "huge.yaml: is larger than 1 MiB: not a recipe");
  write("binary.yaml", std::string("\x89HDF\r\n\x1a\n", 8));
  EXPECT_EQ(message("binary.yaml"), "binary.yaml:1:1: not a YAML text: the byte 0x89 is not UTF-8");
  EXPECT_EQ(message("good.yaml/"), "good.yaml/: cannot be read: Not a directory");
}

}  // namespace
}  // namespace tessera
