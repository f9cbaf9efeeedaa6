#include "parallel/pipeline_balance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <random>

#include "recipes/error.h"

namespace tessera {
namespace {
using testing::ElementsAre;

double dearest(const BlockCosts& costs, const std::vector<int>& first_blocks) {
  const auto parts = part_costs(costs, first_blocks);
  return *std::max_element(parts.begin(), parts.end());
}

// Every choice of first blocks: each subset of the blocks but the first.
double least_by_trying(const BlockCosts& costs, int num_parts) {
  double least = std::numeric_limits<double>::infinity();
  const int num_blocks = static_cast<int>(costs.blocks.size());
  for (int subset = 0; subset < 1 << (num_blocks - 1); ++subset) {
    std::vector<int> first_blocks{0};
    for (int block = 1; block < num_blocks; ++block) {
      if (subset >> (block - 1) & 1) first_blocks.push_back(block);
    }
    if (static_cast<int>(first_blocks.size()) == num_parts) {
      least = std::min(least, dearest(costs, first_blocks));
    }
  }
  return least;
}

TEST(Balance, makes_the_dearest_part_as_cheap_as_any_cut_can) {
  std::mt19937 random(1);
  std::uniform_int_distribution<int> cost(0, 9);  // whole numbers: sums are exact
  for (int num_blocks = 1; num_blocks <= 9; ++num_blocks) {
    for (int num_parts = 1; num_parts <= num_blocks; ++num_parts) {
      for (int i = 0; i < 5; ++i) {
        BlockCosts costs{{}, static_cast<double>(cost(random)), static_cast<double>(2 * cost(random))};
        for (int block = 0; block < num_blocks; ++block) costs.blocks.push_back(cost(random));
        const auto first_blocks = balance_stages(costs, num_parts);
        ASSERT_EQ(static_cast<int>(first_blocks.size()), num_parts);
        EXPECT_EQ(first_blocks[0], 0);
        EXPECT_TRUE(std::is_sorted(first_blocks.begin(), first_blocks.end(), std::less_equal<>()));
        EXPECT_LT(first_blocks.back(), num_blocks);
        EXPECT_DOUBLE_EQ(dearest(costs, first_blocks), least_by_trying(costs, num_parts));
      }
    }
  }
}

TEST(Balance, gives_fewer_blocks_to_the_parts_with_embedding_and_head) {
  const std::vector<double> twelve(12, 1.0);
  EXPECT_THAT(balance_stages({twelve, 0, 0}, 4), ElementsAre(0, 3, 6, 9));
  EXPECT_THAT(balance_stages({twelve, 0, 2}, 2), ElementsAre(0, 7));
  EXPECT_THAT(balance_stages({twelve, 1, 3}, 4), ElementsAre(0, 3, 7, 11));
  // The head alone sets the pace: the others are even all the same.
  EXPECT_THAT(balance_stages({std::vector<double>(9, 1.0), 0, 9}, 3), ElementsAre(0, 4, 8));
}

TEST(Balance, refuses_more_parts_than_blocks) {
  EXPECT_THROW(balance_stages({{1, 1, 1}, 0, 0}, 4), Error);
  try {
    balance_stages({{1, 1, 1}, 0, 0}, 4);
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "3 blocks do not make 4 parts of a pipeline (stages x chunks); valid: 1 to 3");
  }
}
}  // namespace
}  // namespace tessera
