#pragma once
// Times of work on a device, and what the device can do at best, for the tools that measure.
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include "parallel/plugin.h"
#include "trainer/kernels/kernels.h"

namespace tessera {

/// Moments in the work of a device: on a GPU by its own events, which hold nothing up, on the CPU by the
/// clock.
class DeviceClock {
 public:
  explicit DeviceClock(at::Device device) : device_(device) {}

  void mark() {
    if (device_.is_cpu()) {
      const auto time = std::chrono::steady_clock::now().time_since_epoch();
      moments_.push_back(std::chrono::duration<double>(time).count());
      return;
    }
    events_.emplace_back(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
    events_.back().record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
  }

  /// Seconds from mark number `from` to `to`. Waits until the device is there.
  double seconds(size_t from, size_t to) const {
    if (device_.is_cpu()) return moments_.at(to) - moments_.at(from);
    events_.at(to).synchronize();
    return events_.at(from).elapsedTime(events_.at(to)) * 1e-3;
  }

 private:
  at::Device device_;
  std::vector<double> moments_;
  std::vector<c10::Event> events_;
};

struct Spread {
  double median = 0, least = 0, most = 0;
};
inline Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {values.at(values.size() / 2), values.front(), values.back()};
}

/// Seconds of `repeat` runs of the work, after one that does not count.
template <class Work>
Spread time_work(at::Device device, int repeat, const Work& work) {
  work();
  DeviceClock clock(device);
  clock.mark();
  for (int i = 0; i < repeat; ++i) {
    work();
    clock.mark();
  }
  std::vector<double> times;
  for (size_t i = 0; i < static_cast<size_t>(repeat); ++i) times.push_back(clock.seconds(i, i + 1));
  return spread_of(times);
}

/// FLOP/s of the median of several products of random squares, 8192 wide on a GPU: the ceiling that a step is
/// held against. Random: a GPU multiplies ones at a higher clock than real data.
inline double product_ceiling(at::Device device, at::ScalarType type) {
  const at::NoGradGuard no_grad;
  const int64_t size = device.is_cpu() ? 1024 : 8192;
  const at::Tensor a = torch::randn({size, size}, device).to(type),
                   b = torch::randn({size, size}, device).to(type);
  const Spread times = time_work(device, device.is_cpu() ? 5 : 11, [&] { multiply_transposed(a, b); });
  return 2 * static_cast<double>(size * size * size) / times.median;
}

/// Bytes per second, read and written, of the median of several large copies.
inline double copy_ceiling(at::Device device) {
  const int64_t bytes = int64_t{1} << (device.is_cpu() ? 27 : 30);
  const at::Tensor from = torch::zeros({bytes}, at::TensorOptions(device).dtype(at::kByte)),
                   to = torch::empty_like(from);
  const Spread times = time_work(device, 11, [&] { to.copy_(from, /*non_blocking=*/true); });
  return 2 * static_cast<double>(bytes) / times.median;
}

inline std::string name_of_device(at::Device device) {
  if (!device.is_cpu()) return gpu_plugin().device_name(device.index());
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

}  // namespace tessera
