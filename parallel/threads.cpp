#include "parallel/threads.h"

#include <sched.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <sstream>

namespace tessera {
namespace {
std::vector<int> processors(const std::string& text) {
  std::vector<int> list;
  std::istringstream items(text);
  std::string item;
  while (std::getline(items, item, ',')) list.push_back(std::stoi(item));
  return list;
}
}  // namespace

std::string affinity_text() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  sched_getaffinity(0, sizeof(mask), &mask);
  std::string text;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &mask)) text += (text.empty() ? "" : ",") + std::to_string(i);
  }
  return text;
}

int threads_for(const std::vector<std::string>& masks, int me) {
  std::map<int, int> users;
  for (const auto& mask : masks) {
    for (const int processor : processors(mask)) ++users[processor];
  }
  double share = 0;
  for (const int processor : processors(masks.at(me))) share += 1.0 / users[processor];
  const double limit = processor_limit();
  if (limit > 0) share = std::min(share, limit / static_cast<double>(masks.size()));
  return std::max(1, static_cast<int>(share + 1e-6));
}

double processor_limit() {
  std::ifstream file(
      "/sys/fs/cgroup/cpu.max");  // "max 100000" or "200000 100000": microseconds of use per period
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return 0;
  return std::stod(quota) / period;
}

}  // namespace tessera
