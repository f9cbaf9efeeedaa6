#include "datasets/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>

#include "datasets/views.h"

namespace tessera {
namespace {

using ::testing::HasSubstr;

class Numbers : public Dataset {
 public:
  explicit Numbers(int64_t size, int64_t poison = -1) : size_(size), poison_(poison) {}
  int64_t size() const override { return size_; }
  Example get(int64_t index) const override {
    if (index == poison_) throw Error("sample is damaged");
    Example example;
    example.tokens = {static_cast<int32_t>(index)};
    return example;
  }

 private:
  int64_t size_, poison_;
};

/// (global index, token) of every sample of a micro-batch.
using Batch = std::vector<std::pair<int64_t, int32_t>>;
Batch collate(std::vector<Example> examples) {
  Batch batch;
  for (const auto& example : examples) batch.emplace_back(example.index, example.tokens.at(0));
  return batch;
}
using NumberLoader = Loader<Batch>;

/// What all ranks together consume in `steps` steps from `samples` on: global index -> token; each index
/// exactly once.
void consume(std::map<int64_t, int32_t>& consumed, DatasetPtr data, LoaderOptions options, int steps) {
  for (options.rank = 0; options.rank < options.ranks; ++options.rank) {
    NumberLoader loader(data, options, collate);
    for (int step = 0; step < steps; ++step) {
      for (const auto& batch : loader.next()) {
        for (const auto& [index, token] : batch) EXPECT_TRUE(consumed.emplace(index, token).second) << index;
      }
    }
    EXPECT_EQ(loader.state(), options.samples + steps * options.global_batch);
  }
}

TEST(Loader, ChangingTheRanksRepeatsAndSkipsNothing) {
  const auto data = epochs(std::make_shared<Numbers>(50), 3);
  std::map<int64_t, int32_t> undisturbed;
  consume(undisturbed, data, {.global_batch = 12, .micro_batch = 12}, 10);
  ASSERT_EQ(undisturbed.size(), 120u);
  EXPECT_EQ(undisturbed.rbegin()->first, 119);
  for (const int before : {1, 2, 3, 4}) {
    for (const int after : {1, 2, 3, 4}) {
      std::map<int64_t, int32_t> resumed;
      consume(resumed, data, {.global_batch = 12, .micro_batch = 1, .ranks = before}, 4);
      consume(resumed, data,
              {.global_batch = 12, .micro_batch = 1, .ranks = after, .threads = 2, .samples = 48}, 6);
      EXPECT_EQ(resumed, undisturbed) << before << " then " << after << " ranks";
    }
  }
}

TEST(Loader, CutsTheStepIntoMicroBatches) {
  NumberLoader loader(epochs(std::make_shared<Numbers>(100), 0, false),
                      {.global_batch = 12, .micro_batch = 2, .rank = 1, .ranks = 2}, collate);
  loader.next();
  const auto step = loader.next();
  ASSERT_EQ(step.size(), 3u);
  EXPECT_EQ(step[0], (Batch{{18, 18}, {19, 19}}));
  EXPECT_EQ(step[2], (Batch{{22, 22}, {23, 23}}));
}

TEST(Loader, GivesTheSameWithAnyThreads) {
  const auto data = epochs(std::make_shared<Numbers>(1000), 3);
  NumberLoader one(data, {.global_batch = 8, .micro_batch = 4, .prefetch = 1, .threads = 1}, collate);
  NumberLoader four(data, {.global_batch = 8, .micro_batch = 4, .prefetch = 7, .threads = 4}, collate);
  for (int step = 0; step < 200; ++step) ASSERT_EQ(one.next(), four.next());
}

TEST(Loader, RestoresInBothDirections) {
  NumberLoader loader(epochs(std::make_shared<Numbers>(1000), 3), {.global_batch = 8, .micro_batch = 8},
                      collate);
  const auto first = loader.next();
  const int64_t here = loader.state();
  const auto second = loader.next();
  loader.next();
  loader.restore(here);
  EXPECT_EQ(loader.next(), second);
  loader.restore(0);
  EXPECT_EQ(loader.next(), first);
  EXPECT_EQ(loader.state(), 8);
}

TEST(Loader, EndsAfterTheLastWholeStepOfAFiniteDataset) {
  NumberLoader loader(std::make_shared<Numbers>(10), {.global_batch = 4, .micro_batch = 4}, collate);
  EXPECT_EQ(loader.num_steps(), 2);
  EXPECT_EQ(loader.next().size(), 1u);
  EXPECT_EQ(loader.next().size(), 1u);
  EXPECT_TRUE(loader.next().empty());
  EXPECT_TRUE(loader.next().empty());
  EXPECT_EQ(loader.state(), 8);
}

TEST(Loader, ErrorsSurfaceInTheirPlace) {
  for (const int threads : {1, 3}) {
    NumberLoader loader(std::make_shared<Numbers>(100, 9),
                        {.global_batch = 4, .micro_batch = 4, .threads = threads}, collate);
    loader.next();
    loader.next();
    EXPECT_THROW(loader.next(), Error);
    EXPECT_TRUE(loader.next().empty());
    loader.restore(12);
    EXPECT_EQ(loader.next().at(0).at(0).first, 12);
  }
}

TEST(Loader, PrefetchesNoFurtherThanAsked) {
  std::atomic<int> collated = 0;
  NumberLoader loader(std::make_shared<Numbers>(1000), {.global_batch = 1, .micro_batch = 1, .prefetch = 3},
                      [&](std::vector<Example> examples) {
                        ++collated;
                        return collate(std::move(examples));
                      });
  loader.next();
  while (collated < 4) std::this_thread::yield();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(collated, 4);
}

TEST(Loader, StopsCleanlyWhileWorking) {
  for (int i = 0; i < 50; ++i) {
    NumberLoader loader(epochs(std::make_shared<Numbers>(100), 1),
                        {.global_batch = 2, .micro_batch = 1, .threads = 3}, collate);
    if (i % 2) loader.next();
  }
}

TEST(Loader, RefusesBatchesThatDoNotDivide) {
  try {
    NumberLoader loader(std::make_shared<Numbers>(100), {.global_batch = 10, .micro_batch = 4, .ranks = 2},
                        collate);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("multiple of 8"));
  }
}

}  // namespace
}  // namespace tessera
