#include "parallel/pipeline_balance.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "recipes/error.h"

namespace tessera {
namespace {
constexpr double impossible = std::numeric_limits<double>::infinity();

class StageBalance {
 public:
  StageBalance(const BlockCosts& costs, int num_parts)
      : costs_(costs), num_blocks_(static_cast<int>(costs.blocks.size())), num_parts_(num_parts) {
    for (const double block : costs.blocks) sums_.push_back(sums_.back() + block);
  }

  double cost(int first, int end) const {
    return sums_[end] - sums_[first] + (first == 0 ? costs_.embedding : 0) +
           (end == num_blocks_ ? costs_.head : 0);
  }

  struct Cut {
    double value = impossible;
    std::vector<int> first_blocks;
  };
  /// Dynamic programming over (parts, blocks before their end); `combine` joins the value of the parts before
  /// and the cost of one more.
  Cut best(const std::function<double(double, double)>& combine) const {
    std::vector<Cut> ends(num_blocks_ + 1);  // of the parts so far, by their end
    ends[0].value = 0;
    for (int part = 0; part < num_parts_; ++part) {
      std::vector<Cut> next(num_blocks_ + 1);
      for (int end = part + 1; end <= num_blocks_ - (num_parts_ - 1 - part); ++end) {
        int best_first = -1;
        for (int first = part; first < end; ++first) {
          const double value = combine(ends[first].value, cost(first, end));
          if (value >= next[end].value) continue;
          next[end].value = value;
          best_first = first;
        }
        if (best_first < 0) continue;
        next[end].first_blocks = ends[best_first].first_blocks;
        next[end].first_blocks.push_back(best_first);
      }
      ends = std::move(next);
    }
    return ends[num_blocks_];
  }

 private:
  const BlockCosts& costs_;
  int num_blocks_;
  int num_parts_;
  std::vector<double> sums_{0};  // of the blocks before each
};
}  // namespace

std::vector<int> balance_stages(const BlockCosts& costs, int num_parts) {
  const int num_blocks = static_cast<int>(costs.blocks.size());
  if (num_parts < 1 || num_parts > num_blocks) {
    throw Error(fmt::format("{} blocks do not make {} parts of a pipeline (stages x chunks); valid: 1 to {}",
                            num_blocks, num_parts, num_blocks));
  }
  const StageBalance balance(costs, num_parts);
  const double limit = balance.best([](double before, double cost) { return std::max(before, cost); }).value;
  return balance
      .best([limit](double before, double cost) { return cost > limit ? impossible : before + cost * cost; })
      .first_blocks;
}

std::vector<double> part_costs(const BlockCosts& costs, const std::vector<int>& first_blocks) {
  const int num_parts = static_cast<int>(first_blocks.size());
  const StageBalance balance(costs, num_parts);
  std::vector<double> list;
  for (int part = 0; part < num_parts; ++part) {
    const bool last = part + 1 == num_parts;
    list.push_back(balance.cost(first_blocks[part],
                                last ? static_cast<int>(costs.blocks.size()) : first_blocks[part + 1]));
  }
  return list;
}

}  // namespace tessera
