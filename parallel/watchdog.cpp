#include "parallel/watchdog.h"

#include <fmt/format.h>

#include <stdexcept>

#include "parallel/world.h"

namespace tessera {
namespace {
constexpr std::chrono::milliseconds period{100};

double in_seconds(std::chrono::milliseconds time) { return static_cast<double>(time.count()) * 1e-3; }
}  // namespace

Watchdog::Watchdog(WatchdogOptions options) : options_(std::move(options)) {
  thread_ = std::thread([this] { run(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Watchdog::add(std::shared_ptr<Watched> operation) {
  const std::lock_guard lock(mutex_);
  under_way_.push_back(std::move(operation));
}

void Watchdog::throw_error() const {
  const std::lock_guard lock(mutex_);
  if (!error_.empty()) throw std::runtime_error(error_);
}

void Watchdog::run() {
  const auto stopped_within = [this](std::chrono::milliseconds time) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, time, [this] { return stopping_; });
  };
  std::string error;
  while (error.empty()) {
    if (stopped_within(period)) return;
    error = find_error();
  }
  {
    const std::lock_guard lock(mutex_);
    error_ = error;
  }
  std::thread([abort = options_.abort] {
    try {
      abort();
    } catch (...) {  // the error is known already
    }
  }).detach();
  if (!stopped_within(options_.end_limit)) abort_job(error, 1);
}

std::string Watchdog::find_error() {
  std::shared_ptr<Watched> first;
  const auto said = [&](const std::string& what) {
    return fmt::format("{} among {} {}", first ? first->what() : "messages", options_.group, what);
  };
  try {
    options_.enter();
    while ((first = oldest()) && first->is_issued() && first->finished()) {
      const std::lock_guard lock(mutex_);
      under_way_.pop_front();
    }
    if (const std::string problem = options_.problem(); !problem.empty())
      return said("lost them: " + problem);
  } catch (const std::exception& error) {
    return said(fmt::format("failed: {}", error.what()));
  } catch (...) {
    return said("failed");
  }
  if (!first || std::chrono::steady_clock::now() - first->begun() <= options_.time_limit) return "";
  return said(fmt::format("has waited {:g} s for the others{} (limit: TESSERA_TIMEOUT_SECONDS)",
                          in_seconds(options_.time_limit),
                          first->is_issued() ? "" : ", some of which have not begun it"));
}

std::shared_ptr<Watched> Watchdog::oldest() const {
  const std::lock_guard lock(mutex_);
  return under_way_.empty() ? nullptr : under_way_.front();
}

}  // namespace tessera
