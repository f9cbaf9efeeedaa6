#pragma once
#include <string>
#include <unordered_map>
#include <vector>

namespace tessera {

/// The processes of the ranks that share this host, for seeing that one is gone: its messages never come, and
/// launchers tell nobody (mpirun ends the others a second later, srun perhaps never).
class Neighbours {
 public:
  Neighbours() = default;
  /// `cards`: of each rank, what its card() gave.
  explicit Neighbours(const std::vector<std::string>& cards);

  /// What others need to find this process, up to `longest_card` characters.
  static std::string card();
  static constexpr size_t longest_card = 80;

  /// Marks this process as one that ends and says why itself: its end is no news. Others look every 0.1 s.
  static void announce_end();

  /// Whether a rank's process is gone without having announced it. False for ranks elsewhere. Costs some
  /// system calls.
  bool died(int rank);

 private:
  std::unordered_map<int, int> processes_;  // by rank
};

}  // namespace tessera
