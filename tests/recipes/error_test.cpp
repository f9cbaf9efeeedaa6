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

}  // namespace
}  // namespace tessera
