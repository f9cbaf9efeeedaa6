#include "recipes/error.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(Nearest, FindsATypo) {
  EXPECT_EQ(nearest("learning_rat", {"learning_rate", "weight_decay"}), "learning_rate");
  EXPECT_EQ(nearest("brat", {"bert", "bart", "gpt"}), "bart");
}

TEST(Nearest, IsSilentAboutSomethingElse) { EXPECT_EQ(nearest("zebra", {"adamw", "sgd"}), ""); }

TEST(ValidNames, ListsAndSuggests) {
  EXPECT_EQ(valid_names("adam", {"adamw", "sgd"}), "; valid: adamw, sgd; did you mean 'adamw'?");
}

TEST(Error, LeavesOutTheMiddleOfWhatNobodyWouldRead) {
  EXPECT_STREQ(Error("a\nb").what(), "a\nb");
  EXPECT_STREQ(Error("").what(), "");
  const std::string name(70000, 'x');
  const std::string text = Error("file: '" + name + "' is unknown; valid: y\nsecond line").what();
  EXPECT_LT(text.size(), 3000);
  EXPECT_TRUE(text.starts_with("file: 'xxx"));
  EXPECT_TRUE(text.ends_with("xxx' is unknown; valid: y\nsecond line"));
  std::string wide;
  for (int i = 0; i < 5000; ++i) wide += "ü";
  const std::string cut = Error(wide).what();
  EXPECT_EQ((cut.size() - std::string(" … ").size()) % 2, 0);  // no half of a character
  EXPECT_EQ(nearest(name, {name, "y"}), "");
}

}  // namespace
}  // namespace tessera
