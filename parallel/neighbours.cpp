#include "parallel/neighbours.h"

#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <string_view>

namespace tessera {
namespace {
// A process's name, which everybody may read and itself may write, up to 15 characters.
constexpr const char* own_name = "/proc/self/comm";
constexpr std::string_view ending = "tessera-ending";
}  // namespace

// Process numbers mean something within a namespace (container) of a host only.
std::string Neighbours::card() {
  std::error_code unknown;
  const auto space = std::filesystem::read_symlink("/proc/self/ns/pid", unknown).string();
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  if (unknown || boot.empty()) return "";
  return (boot + space + " " + std::to_string(getpid())).substr(0, longest_card);
}

Neighbours::Neighbours(const std::vector<std::string>& cards) {
  const std::string mine = card();
  const std::string host = mine.substr(0, mine.find(' ') + 1);
  if (host.empty()) return;
  for (size_t rank = 0; rank < cards.size(); ++rank) {
    if (cards[rank] == mine || cards[rank].compare(0, host.size(), host) != 0) continue;
    processes_[static_cast<int>(rank)] = std::stoi(cards[rank].substr(host.size()));
  }
}

void Neighbours::announce_end() { std::ofstream(own_name) << ending; }

bool Neighbours::died(int rank) {
  const auto process = processes_.find(rank);
  if (process == processes_.end()) return false;
  std::string name;
  std::ifstream("/proc/" + std::to_string(process->second) + "/comm") >> name;
  if (name != ending) return kill(process->second, 0) != 0 && errno == ESRCH;
  processes_.erase(process);
  return false;
}

}  // namespace tessera
