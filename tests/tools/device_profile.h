#pragma once
// Where a device's time goes, by LibTorch's own profiler (Kineto, on a GPU through CUPTI).
#include <kineto/ActivityType.h>
#include <torch/csrc/autograd/profiler_kineto.h>
#include <torch/torch.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

namespace tessera {

/// What ran under one name: a kernel, copy or fill on a GPU; an operator on the CPU, without those that it
/// called.
struct ProfiledWork {
  std::string name;
  double seconds = 0;
  int64_t count = 0;
};

namespace profiling {

using Event = torch::autograd::profiler::KinetoEvent;

inline bool is_kind(const Event& event, libkineto::ActivityType kind) {
  return event.activityType() == static_cast<uint8_t>(kind);
}

inline void add(std::map<std::string, ProfiledWork>& all, const std::string& name, double seconds) {
  ProfiledWork& work = all[name];
  work.name = name;
  work.seconds += seconds;
  ++work.count;
}

inline std::map<std::string, ProfiledWork> on_gpu(const std::vector<Event>& events) {
  std::map<std::string, ProfiledWork> all;
  for (const Event& event : events) {
    for (const auto kind : {libkineto::ActivityType::CONCURRENT_KERNEL, libkineto::ActivityType::GPU_MEMCPY,
                            libkineto::ActivityType::GPU_MEMSET}) {
      if (is_kind(event, kind)) add(all, event.name(), static_cast<double>(event.durationNs()) * 1e-9);
    }
  }
  return all;
}

/// An operator that others run inside of keeps what is left of its time.
inline std::map<std::string, ProfiledWork> on_cpu(const std::vector<Event>& events) {
  std::vector<const Event*> operators;
  for (const Event& event : events) {
    if (is_kind(event, libkineto::ActivityType::CPU_OP)) operators.push_back(&event);
  }
  // Of those that begin together the one around the others first.
  std::sort(operators.begin(), operators.end(), [](const Event* a, const Event* b) {
    return std::tuple(a->startThreadId(), a->startNs(), b->endNs()) <
           std::tuple(b->startThreadId(), b->startNs(), a->endNs());
  });
  std::map<std::string, ProfiledWork> all;
  std::vector<const Event*> around;
  for (const Event* event : operators) {
    while (!around.empty() && (around.back()->startThreadId() != event->startThreadId() ||
                               around.back()->endNs() <= event->startNs())) {
      around.pop_back();
    }
    const double seconds = static_cast<double>(event->durationNs()) * 1e-9;
    if (!around.empty()) all[around.back()->name()].seconds -= seconds;
    add(all, event->name(), seconds);
    around.push_back(event);
  }
  return all;
}

}  // namespace profiling

/// All that `work` ran on the device, the longest first. `work` waits for the device at its end.
template <class Work>
std::vector<ProfiledWork> profile(at::Device device, const Work& work) {
  using namespace torch::profiler::impl;
  const ProfilerConfig config(ProfilerState::KINETO);
  std::set<ActivityType> activities{ActivityType::CPU};
  if (device.is_cuda()) activities.insert(ActivityType::CUDA);
  torch::autograd::profiler::prepareProfiler(config, activities);
  torch::autograd::profiler::enableProfiler(config, activities);
  work();
  const auto result = torch::autograd::profiler::disableProfiler();
  std::vector<ProfiledWork> all;
  for (auto& [name, each] :
       device.is_cuda() ? profiling::on_gpu(result->events()) : profiling::on_cpu(result->events()))
    all.push_back(each);
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.seconds > b.seconds; });
  return all;
}

}  // namespace tessera
