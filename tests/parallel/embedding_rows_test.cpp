#include "parallel/embedding_rows.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

namespace tessera {
namespace {

TEST(EmbeddingRows, are_looked_up_in_one_stretch_or_sorted) {
  for (const int64_t n : {0, 1, 1024, 3073, 100000}) EXPECT_EQ(num_lookups(n), n);
  for (const int64_t n : {1025, 2048, 3072}) EXPECT_EQ(num_lookups(n), 3073);
}

TEST(EmbeddingRows, are_the_same_with_more_lookups) {
  torch::manual_seed(2);
  const at::Tensor table = torch::randn({50, 8}).requires_grad_();
  const at::Tensor indices = torch::randint(50, {1100}, at::kLong), weights = torch::randn({1100, 8});
  std::vector<at::Tensor> results;
  for (const int64_t lookups : {int64_t{1100}, num_lookups(1100)}) {
    const at::Tensor rows = embedding_rows(table, indices, lookups);
    results.push_back(rows.detach());
    results.push_back(torch::autograd::grad({(rows * weights).sum()}, {table})[0]);
  }
  EXPECT_TRUE(at::equal(results[0], results[2]));
  EXPECT_TRUE(at::equal(results[1], results[3]));
  EXPECT_TRUE(at::equal(embedding_rows(table, indices), results[0]));
}

}  // namespace
}  // namespace tessera
