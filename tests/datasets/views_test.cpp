#include "datasets/views.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "datasets/permutation.h"
#include "recipes/error.h"

namespace tessera {
namespace {

/// Sample i holds the one token first + i.
class Counting : public Dataset {
 public:
  explicit Counting(int64_t size, int32_t first = 0) : size_(size), first_(first) {}
  int64_t size() const override { return size_; }
  Example get(int64_t index) const override {
    EXPECT_TRUE(index >= 0 && index < size_) << index;
    Example example;
    example.index = index;
    example.tokens = {first_ + static_cast<int32_t>(index)};
    return example;
  }

 private:
  int64_t size_;
  int32_t first_;
};

DatasetPtr counting(int64_t size, int32_t first = 0) { return std::make_shared<Counting>(size, first); }
int32_t token(const DatasetPtr& dataset, int64_t index) { return dataset->get(index).tokens.at(0); }

TEST(Permutation, ReachesEveryPlaceOnce) {
  for (const int64_t size : {1, 2, 3, 4, 5, 7, 8, 9, 31, 33, 100, 1023, 1024, 1025, 65537}) {
    for (const uint64_t key : {0ull, 1ull, 0xFFFFFFFFFFFFFFFFull}) {
      std::vector<bool> reached(size);
      for (int64_t i = 0; i < size; ++i) {
        const int64_t place = permute(i, size, key);
        ASSERT_TRUE(place >= 0 && place < size);
        ASSERT_FALSE(reached[place]) << "size " << size << " key " << key;
        reached[place] = true;
      }
    }
  }
}

TEST(Permutation, HandlesHugeSizes) {
  const int64_t size = (int64_t{1} << 62) + 12345;
  std::set<int64_t> places;
  for (int64_t i = 0; i < 1000; ++i) {
    const int64_t place = permute(size - 1 - i, size, 7);
    ASSERT_TRUE(place >= 0 && place < size);
    places.insert(place);
  }
  EXPECT_EQ(places.size(), 1000u);
}

TEST(Permutation, SendsEveryIndexEverywhereEquallyOftenOverKeys) {
  // chi-square over keys for each (index, place) pair of a small size: 25 cells per index pair, 24 degrees of
  // freedom
  const int64_t size = 25;
  const int keys = 20000;
  for (const int64_t index : {int64_t{0}, int64_t{1}, size / 2, size - 1}) {
    std::vector<int> counts(size);
    for (int key = 0; key < keys; ++key) ++counts[permute(index, size, mix(key, 3))];
    double chi_square = 0;
    for (const int count : counts)
      chi_square += std::pow(count - keys / double(size), 2) / (keys / double(size));
    EXPECT_LT(chi_square, 24 + 4 * std::sqrt(48.0)) << "index " << index;
  }
}

TEST(Permutation, NeighboursLandIndependently) {
  // The distance between the places of i and i + 1, over keys, is that of two random places: mean about size
  // / 3.
  const int64_t size = 1000;
  double sum = 0;
  const int keys = 20000;
  for (int key = 0; key < keys; ++key) {
    sum += std::abs(double(permute(17, size, mix(key, 5))) - double(permute(18, size, mix(key, 5))));
  }
  EXPECT_NEAR(sum / keys, (size + 1) / 3.0, 4 * size / std::sqrt(18.0 * keys));
}

TEST(Views, EpochsGiveEverySampleOncePerEpochInChangingOrder) {
  const auto view = epochs(counting(101), 42);
  std::vector<std::vector<int32_t>> orders;
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::vector<int32_t> order;
    for (int64_t i = 0; i < 101; ++i) {
      order.push_back(token(view, epoch * 101 + i));
      EXPECT_EQ(view->get(epoch * 101 + i).index, epoch * 101 + i);
    }
    orders.push_back(order);
    EXPECT_EQ(std::set<int32_t>(order.begin(), order.end()).size(), 101u);
  }
  EXPECT_NE(orders[0], orders[1]);
  EXPECT_NE(orders[1], orders[2]);
  EXPECT_NE(token(epochs(counting(101), 43), 0) * 101 + token(epochs(counting(101), 43), 1),
            orders[0][0] * 101 + orders[0][1]);
}

TEST(Views, UnshuffledEpochsKeepTheOrder) {
  const auto view = epochs(counting(10), 42, false);
  for (int64_t i = 0; i < 30; ++i) EXPECT_EQ(token(view, i), i % 10);
}

TEST(Views, ConcatenatedGivesOneAfterTheOther) {
  const auto view = concatenated({counting(3, 0), counting(0), counting(4, 100)});
  ASSERT_EQ(view->size(), 7);
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < 7; ++i) tokens.push_back(token(view, i));
  EXPECT_EQ(tokens, (std::vector<int32_t>{0, 1, 2, 100, 101, 102, 103}));
}

TEST(Views, MixedKeepsExactSharesAndLosesNothing) {
  const auto view = mixed({epochs(counting(7000), 1), epochs(counting(1500, 1'000'000), 2)}, {3, 1}, 9);
  std::vector<int> seen(7000), seen_second(1500);
  for (int64_t i = 0; i < 20'000; ++i) {
    const int32_t t = token(view, i);
    EXPECT_EQ(view->get(i).index, i);
    t < 1'000'000 ? ++seen[t] : ++seen_second[t - 1'000'000];
    if (i == 9'999) {
      EXPECT_EQ(std::accumulate(seen.begin(), seen.end(), 0), 7500);
    }
  }
  // 15,000 samples of the first are two epochs and 1,000; 5,000 of the second three epochs and 500
  EXPECT_THAT(seen, ::testing::Each(::testing::AnyOf(2, 3)));
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 3), 1000);
  EXPECT_THAT(seen_second, ::testing::Each(::testing::AnyOf(3, 4)));
}

TEST(Views, MixedSpreadsTheSharesEvenly) {
  const auto view = mixed({epochs(counting(100), 1), epochs(counting(100, 1000), 2)}, {0.5, 0.5}, 9);
  int first = 0;
  for (int64_t i = 0; i < 1000; ++i) first += token(view, i) < 1000;
  EXPECT_NEAR(first, 500, 4 * std::sqrt(250.0));
}

TEST(Views, BadMixesAreRefused) {
  const auto some = epochs(counting(5), 1);
  EXPECT_THROW(mixed({some, some}, {1.0}, 0), Error);
  EXPECT_THROW(mixed({some, some}, {1.0, 0.0}, 0), Error);
  EXPECT_THROW(mixed({some, some}, {1.0, -1.0}, 0), Error);
  EXPECT_THROW(mixed({some, some}, {1.0, 1e-6}, 0), Error);
  EXPECT_THROW(epochs(counting(0), 1), Error);
}

/// Sample i has i * 37 % 101 + 1 tokens, the first of them i.
class Lengths : public Dataset {
 public:
  int64_t size() const override { return 500; }
  Example get(int64_t index) const override {
    Example example;
    example.tokens.assign(static_cast<size_t>(index * 37 % 101 + 1), static_cast<int32_t>(index));
    return example;
  }
};

TEST(Bucketed, HoldsEachWindowsSamplesInBatchesOfLikeLength) {
  constexpr int64_t batch = 8, window = 5;
  const DatasetPtr plain = epochs(std::make_shared<Lengths>(), 3);
  const DatasetPtr data = bucketed(plain, batch, window, 9);
  bool shuffled = false;
  for (int64_t first = 0; first < 4 * batch * window; first += batch * window) {
    std::multiset<int32_t> expected, found;
    std::vector<std::pair<int64_t, int64_t>> ranges;  // of lengths, by batch
    for (int64_t i = first; i < first + batch * window; ++i) {
      expected.insert(token(plain, i));
      found.insert(token(data, i));
      const auto length = static_cast<int64_t>(data->get(i).tokens.size());
      EXPECT_EQ(length, data->length(i));
      EXPECT_EQ(data->get(i).index, i);
      if ((i - first) % batch == 0) ranges.emplace_back(length, length);
      EXPECT_GE(length, ranges.back().second);
      ranges.back().second = length;
    }
    EXPECT_EQ(found, expected);
    shuffled = shuffled || !std::is_sorted(ranges.begin(), ranges.end());
    std::sort(ranges.begin(), ranges.end());
    for (size_t i = 1; i < ranges.size(); ++i) EXPECT_LE(ranges[i - 1].second, ranges[i].first);
  }
  EXPECT_TRUE(shuffled);
}

TEST(Bucketed, IsAPureFunctionOfItsArguments) {
  const auto make = [] { return bucketed(epochs(std::make_shared<Lengths>(), 3), 8, 5, 9); };
  const DatasetPtr forward = make(), backward = make();
  std::vector<int32_t> ahead;
  for (int64_t i = 0; i < 600; ++i) ahead.push_back(token(forward, i));
  for (int64_t i = 599; i >= 0; --i) EXPECT_EQ(token(backward, i), ahead[static_cast<size_t>(i)]);
  EXPECT_THROW(bucketed(counting(5), 1 << 20, 100, 1), Error);
}

}  // namespace
}  // namespace tessera
