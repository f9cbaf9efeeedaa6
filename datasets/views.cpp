#include "datasets/views.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "datasets/permutation.h"
#include "recipes/error.h"

namespace tessera {
namespace {

constexpr int64_t endless = std::numeric_limits<int64_t>::max();

class Shuffled : public Dataset {
 public:
  Shuffled(DatasetPtr dataset, uint64_t key) : dataset_(std::move(dataset)), key_(key) {}
  int64_t size() const override { return dataset_->size(); }
  Example get(int64_t index) const override { return dataset_->get(permute(index, size(), key_)); }

 private:
  DatasetPtr dataset_;
  uint64_t key_;
};

class Epochs : public Dataset {
 public:
  Epochs(DatasetPtr dataset, uint64_t seed, bool shuffle)
      : dataset_(std::move(dataset)), epoch_size_(dataset_->size()), seed_(seed), shuffle_(shuffle) {
    if (epoch_size_ == 0) throw Error("the dataset holds no samples");
  }
  int64_t size() const override { return endless; }
  Example get(int64_t index) const override {
    const int64_t epoch = index / epoch_size_, place = index % epoch_size_;
    Example example = dataset_->get(shuffle_ ? permute(place, epoch_size_, mix(seed_, epoch)) : place);
    example.index = index;
    return example;
  }

 private:
  DatasetPtr dataset_;
  int64_t epoch_size_;
  uint64_t seed_;
  bool shuffle_;
};

class Concatenated : public Dataset {
 public:
  explicit Concatenated(std::vector<DatasetPtr> datasets) : datasets_(std::move(datasets)), starts_{0} {
    for (const auto& dataset : datasets_) starts_.push_back(starts_.back() + dataset->size());
  }
  int64_t size() const override { return starts_.back(); }
  Example get(int64_t index) const override {
    const auto which = std::upper_bound(starts_.begin(), starts_.end(), index) - starts_.begin() - 1;
    Example example = datasets_[which]->get(index - starts_[which]);
    example.index = index;
    return example;
  }

 private:
  std::vector<DatasetPtr> datasets_;
  std::vector<int64_t> starts_;
};

/// Shares of `block` in proportion to the weights, whole numbers that add up to it (largest remainders).
std::vector<int64_t> quotas(const std::vector<double>& weights, int64_t block) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int64_t> result;
  std::vector<std::pair<double, size_t>> remainders;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double exact = weights[i] / sum * block;
    if (!(weights[i] > 0) || exact < 1) {
      throw Error(fmt::format(
          "weight {} of dataset {} in the mix is {}; valid: positive numbers, at least 1/{} of their sum",
          weights[i], i, weights[i] > 0 ? "too small" : "not positive", block));
    }
    result.push_back(static_cast<int64_t>(exact));
    remainders.emplace_back(result.back() - exact, i);
  }
  std::sort(remainders.begin(), remainders.end());
  const int64_t left = block - std::accumulate(result.begin(), result.end(), int64_t{0});
  for (int64_t i = 0; i < left; ++i) ++result[remainders[i].second];
  return result;
}

class Mixed : public Dataset {
 public:
  Mixed(std::vector<DatasetPtr> datasets, const std::vector<double>& weights, uint64_t seed)
      : datasets_(std::move(datasets)), quotas_(quotas(weights, block)), starts_{0}, seed_(seed) {
    for (const int64_t quota : quotas_) starts_.push_back(starts_.back() + quota);
  }
  int64_t size() const override { return endless; }
  Example get(int64_t index) const override {
    const int64_t number = index / block, slot = permute(index % block, block, mix(seed_, number));
    const auto which = std::upper_bound(starts_.begin(), starts_.end(), slot) - starts_.begin() - 1;
    Example example = datasets_[which]->get(number * quotas_[which] + slot - starts_[which]);
    example.index = index;
    return example;
  }

 private:
  static constexpr int64_t block = 10'000;
  std::vector<DatasetPtr> datasets_;
  std::vector<int64_t> quotas_, starts_;
  uint64_t seed_;
};

}  // namespace

DatasetPtr shuffled(DatasetPtr dataset, uint64_t key) {
  return std::make_shared<Shuffled>(std::move(dataset), key);
}
DatasetPtr epochs(DatasetPtr dataset, uint64_t seed, bool shuffle) {
  return std::make_shared<Epochs>(std::move(dataset), seed, shuffle);
}
DatasetPtr concatenated(std::vector<DatasetPtr> datasets) {
  return std::make_shared<Concatenated>(std::move(datasets));
}
DatasetPtr mixed(std::vector<DatasetPtr> datasets, const std::vector<double>& weights, uint64_t seed) {
  if (datasets.empty() || datasets.size() != weights.size()) {
    throw Error(fmt::format("a mix of {} datasets has {} weights; valid: one weight per dataset",
                            datasets.size(), weights.size()));
  }
  return std::make_shared<Mixed>(std::move(datasets), weights, seed);
}

}  // namespace tessera
