#include "datasets/views.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <numeric>
#include <utility>

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
  int64_t length(int64_t index) const override { return dataset_->length(permute(index, size(), key_)); }

 private:
  DatasetPtr dataset_;
  uint64_t key_;
};

/// Samples of other datasets, numbered anew.
class Renumbered : public Dataset {
 public:
  Example get(int64_t index) const final {
    const auto [dataset, place] = place_of(index);
    Example example = dataset->get(place);
    example.index = index;
    return example;
  }
  int64_t length(int64_t index) const final {
    const auto [dataset, place] = place_of(index);
    return dataset->length(place);
  }

 protected:
  struct Place {
    const Dataset* dataset;
    int64_t index;
  };
  virtual Place place_of(int64_t index) const = 0;
};

class Epochs : public Renumbered {
 public:
  Epochs(DatasetPtr dataset, uint64_t seed, bool shuffle)
      : dataset_(std::move(dataset)), epoch_size_(dataset_->size()), seed_(seed), shuffle_(shuffle) {
    if (epoch_size_ == 0) throw Error("the dataset holds no samples");
  }
  int64_t size() const override { return endless; }

 private:
  Place place_of(int64_t index) const override {
    const int64_t epoch = index / epoch_size_, place = index % epoch_size_;
    return {dataset_.get(), shuffle_ ? permute(place, epoch_size_, mix(seed_, epoch)) : place};
  }

  DatasetPtr dataset_;
  int64_t epoch_size_;
  uint64_t seed_;
  bool shuffle_;
};

class Concatenated : public Renumbered {
 public:
  explicit Concatenated(std::vector<DatasetPtr> datasets) : datasets_(std::move(datasets)), starts_{0} {
    for (const auto& dataset : datasets_) starts_.push_back(starts_.back() + dataset->size());
  }
  int64_t size() const override { return starts_.back(); }

 private:
  Place place_of(int64_t index) const override {
    const auto which = std::upper_bound(starts_.begin(), starts_.end(), index) - starts_.begin() - 1;
    return {datasets_[which].get(), index - starts_[which]};
  }

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

class Mixed : public Renumbered {
 public:
  Mixed(std::vector<DatasetPtr> datasets, const std::vector<double>& weights, uint64_t seed)
      : datasets_(std::move(datasets)), quotas_(quotas(weights, block)), starts_{0}, seed_(seed) {
    for (const int64_t quota : quotas_) starts_.push_back(starts_.back() + quota);
  }
  int64_t size() const override { return endless; }

 private:
  Place place_of(int64_t index) const override {
    const int64_t number = index / block, slot = permute(index % block, block, mix(seed_, number));
    const auto which = std::upper_bound(starts_.begin(), starts_.end(), slot) - starts_.begin() - 1;
    return {datasets_[which].get(), number * quotas_[which] + slot - starts_[which]};
  }

  static constexpr int64_t block = 10'000;
  std::vector<DatasetPtr> datasets_;
  std::vector<int64_t> quotas_, starts_;
  uint64_t seed_;
};

class Bucketed : public Renumbered {
 public:
  Bucketed(DatasetPtr dataset, int64_t batch, int64_t window, uint64_t seed)
      : dataset_(std::move(dataset)), batch_(batch), window_(window), seed_(seed) {}
  int64_t size() const override { return endless; }

 private:
  struct Order {
    int64_t window = -1;
    std::vector<int32_t> places;  // in the window, by length
  };
  Place place_of(int64_t index) const override {
    const int64_t samples = batch_ * window_, window = index / samples, within = index % samples;
    const int64_t batch = permute(within / batch_, window_, mix(seed_, window));
    const auto order = order_of(window);
    const int32_t place = order->places[static_cast<size_t>(batch * batch_ + within % batch_)];
    return {dataset_.get(), window * samples + place};
  }
  std::shared_ptr<const Order> order_of(int64_t window) const {
    const std::lock_guard lock(mutex_);
    for (const auto& order : kept_) {
      if (order->window == window) return order;
    }
    const int64_t samples = batch_ * window_;
    std::vector<int64_t> lengths(static_cast<size_t>(samples));
    for (int64_t i = 0; i < samples; ++i)
      lengths[static_cast<size_t>(i)] = dataset_->length(window * samples + i);
    auto order = std::make_shared<Order>();
    order->window = window;
    order->places.resize(lengths.size());
    std::iota(order->places.begin(), order->places.end(), 0);
    std::stable_sort(order->places.begin(), order->places.end(),
                     [&](int32_t a, int32_t b) { return lengths[a] < lengths[b]; });
    if (kept_.size() == max_kept) kept_.erase(kept_.begin());
    kept_.push_back(order);
    return order;
  }

  static constexpr size_t max_kept = 4;  // batches are made ahead, some in the next window
  DatasetPtr dataset_;
  int64_t batch_, window_;
  uint64_t seed_;
  mutable std::mutex mutex_;
  mutable std::vector<std::shared_ptr<const Order>> kept_;
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

DatasetPtr bucketed(DatasetPtr dataset, int64_t batch, int64_t window, uint64_t seed) {
  constexpr int64_t most = int64_t{1} << 24;
  if (batch * window > most) {
    throw Error(fmt::format("data.bucket: {} global batches of {} samples are {}; valid: at most {}", window,
                            batch, batch * window, most));
  }
  return std::make_shared<Bucketed>(std::move(dataset), batch, window, seed);
}

}  // namespace tessera
