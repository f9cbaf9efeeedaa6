#include "trainer/determinism.h"

#include <ATen/Context.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace tessera {
namespace {

class Determinism : public testing::Test {
 protected:
  void TearDown() override {
    at::globalContext().setDeterministicAlgorithms(false, false);
    at::globalContext().setDeterministicFillUninitializedMemory(true);
    unsetenv(workspace);
  }
  static constexpr const char* workspace = "CUBLAS_WORKSPACE_CONFIG";
  const at::Device gpu_{at::kCUDA, 0};
  TrainSection train_;
};

TEST_F(Determinism, is_asked_of_gpus_unless_the_recipe_says_otherwise) {
  unsetenv(workspace);
  set_determinism(train_, at::kCPU);
  EXPECT_FALSE(at::globalContext().deterministicAlgorithms());
  train_.deterministic = false;
  set_determinism(train_, gpu_);
  EXPECT_FALSE(at::globalContext().deterministicAlgorithms());
  EXPECT_EQ(std::getenv(workspace), nullptr);
  train_.deterministic = true;
  set_determinism(train_, gpu_);
  EXPECT_TRUE(at::globalContext().deterministicAlgorithms());
  EXPECT_FALSE(at::globalContext().deterministicAlgorithmsWarnOnly());
  EXPECT_FALSE(at::globalContext().deterministicFillUninitializedMemory());
  EXPECT_STREQ(std::getenv(workspace), ":4096:8");
}

TEST_F(Determinism, leaves_the_users_workspaces) {
  setenv(workspace, ":16:8", 1);
  set_determinism(train_, gpu_);
  EXPECT_STREQ(std::getenv(workspace), ":16:8");
}

}  // namespace
}  // namespace tessera
