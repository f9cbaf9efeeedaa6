#pragma once
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

namespace tessera {

/// Works on items in parallel and hands the results out in the order of the items, so that what comes out
/// does not depend on the number of threads. The threads take turns in calling `source` (never two at once),
/// run `transform` side by side, and keep at most `ahead` results waiting. What either throws, next() throws
/// in its place in the order; afterwards the pipeline is at its end. Destroying it stops the threads after
/// their current item.
template <class In, class Out>
class OrderedPipeline {
 public:
  using Source = std::function<std::optional<In>()>;  ///< nothing = the end
  using Transform = std::function<Out(In)>;

  OrderedPipeline(Source source, Transform transform, int threads, int ahead)
      : source_(std::move(source)), transform_(std::move(transform)), ahead_(ahead) {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
  }
  OrderedPipeline(const OrderedPipeline&) = delete;
  OrderedPipeline& operator=(const OrderedPipeline&) = delete;
  ~OrderedPipeline() {
    {
      std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    room_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  /// The next result, waiting for it if need be; nothing after the last.
  std::optional<Out> next() {
    std::unique_lock lock(mutex_);
    ready_.wait(lock, [&] { return done_.count(delivered_) || (ended_ && delivered_ == taken_); });
    if (ended_ && delivered_ == taken_) return std::nullopt;
    auto node = done_.extract(delivered_++);
    room_.notify_all();
    Result& result = node.mapped();
    if (!result.error) return std::move(result.value);
    ended_ = true;
    delivered_ = taken_;
    std::rethrow_exception(result.error);
  }

 private:
  struct Result {
    std::optional<Out> value;
    std::exception_ptr error;
  };

  void work() {
    int64_t number = 0;
    while (auto item = take(number)) {
      Result result;
      try {
        result.value = transform_(std::move(*item));
      } catch (...) {
        result.error = std::current_exception();
      }
      deliver(number, std::move(result));
    }
  }

  /// Waits for this thread's turn and for room; nothing when there is no more to do.
  std::optional<In> take(int64_t& number) {
    std::lock_guard turn(turn_);
    {
      std::unique_lock lock(mutex_);
      room_.wait(lock, [&] { return stopped_ || ended_ || taken_ < delivered_ + ahead_; });
      if (stopped_ || ended_) return std::nullopt;
    }
    std::optional<In> item;
    Result failure;
    try {
      item = source_();
    } catch (...) {
      failure.error = std::current_exception();
    }
    std::lock_guard lock(mutex_);
    if (ended_) return std::nullopt;  // next() threw meanwhile
    if (item) {
      number = taken_++;
      return item;
    }
    ended_ = true;
    if (failure.error) done_.emplace(taken_++, std::move(failure));
    ready_.notify_all();
    room_.notify_all();
    return std::nullopt;
  }

  void deliver(int64_t number, Result result) {
    std::lock_guard lock(mutex_);
    if (number < delivered_) return;  // an earlier item failed
    done_.emplace(number, std::move(result));
    if (number == delivered_) ready_.notify_all();
  }

  Source source_;
  Transform transform_;
  const int64_t ahead_;
  std::mutex turn_;   // held while reading from the source
  std::mutex mutex_;  // guards everything below
  std::condition_variable room_, ready_;
  std::map<int64_t, Result> done_;
  int64_t taken_ = 0, delivered_ = 0;
  bool ended_ = false, stopped_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace tessera
