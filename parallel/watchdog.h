#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

namespace tessera {

/// An operation under way, as a watchdog sees it.
class Watched {
 public:
  explicit Watched(std::string what) : what_(std::move(what)) {}
  virtual ~Watched() = default;
  const std::string& what() const { return what_; }
  std::chrono::steady_clock::time_point begun() const { return begun_; }
  /// From now on finished() may be asked: what it looks at exists.
  void set_issued() { issued_ = true; }
  bool is_issued() const { return issued_; }
  /// Never waits. May throw, which is an error of the group. Called on the watchdog's thread.
  virtual bool finished() = 0;

 private:
  std::string what_;
  std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
  std::atomic<bool> issued_{false};
};

struct WatchdogOptions {
  std::string group;                           ///< for messages: "4 GPUs"
  std::chrono::milliseconds time_limit{0};     ///< for one operation, from add() to its end
  std::chrono::milliseconds end_limit{10000};  ///< from an error to the end of the process
  std::function<void()> enter = [] {};         ///< before each look, on the watchdog's thread
  std::function<std::string()> problem = [] {
    return "";
  };  ///< what is known to be wrong with the group; never waits
  /// Lets the host out of waiting for the group's operations. May wait for ever: called on a thread of its
  /// own.
  std::function<void()> abort = [] {};
};

/// Sees from a thread of its own whether a group's operations come to their end: one that takes longer than
/// the limit, also to issue, a problem that the library of messages knows, or an exception in asking is an
/// error. Then throw_error() throws it, `abort` is called, and where all that has not ended the process, or
/// this object, in time, abort_job() does.
class Watchdog {
 public:
  explicit Watchdog(WatchdogOptions options);
  ~Watchdog();  ///< at once, and nothing is ended any more
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// To be called before the operation is issued: issuing may wait for other ranks.
  void add(std::shared_ptr<Watched> operation);
  /// Throws std::runtime_error where there has been an error.
  void throw_error() const;

 private:
  void run();
  std::string find_error();
  std::shared_ptr<Watched> oldest() const;

  const WatchdogOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<Watched>> under_way_;  // guarded by mutex_
  std::string error_;                               // guarded by mutex_
  bool stopping_ = false;                           // guarded by mutex_
  std::thread thread_;
};

}  // namespace tessera
