#pragma once
#include <chrono>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

namespace tessera {

/// What the line shows besides the step.
struct ProgressNumbers {
  double loss = 0;
  double learning_rate = 0;
  double tokens_per_second = 0;
};

struct ProgressOptions {
  int64_t total = 0;                   ///< steps of the run
  int64_t first_step = 0;              ///< steps already done when this process started
  int64_t every = 10;                  ///< steps between two plain lines
  bool terminal = false;               ///< refresh one line instead of adding lines
  int columns = 100;                   ///< width of the terminal
  std::function<double()> clock = {};  ///< seconds, for tests; default: the steady clock
};

/// Shows how far the run is: on a terminal one line with a bar, refreshed at most ten times a second;
/// otherwise plain lines at the first step, every `every` steps and at the last.
class Progress {
 public:
  Progress(std::ostream& out, ProgressOptions options);

  /// After each step; `step` counts from 1.
  void update(int64_t step, const ProgressNumbers& numbers);
  /// Prints a line above the bar ("validation loss 2.31", "saved step 200").
  void note(const std::string& text);
  /// Leaves the last line standing.
  void finish();

 private:
  std::string line(int64_t step, const ProgressNumbers& numbers) const;

  std::ostream& out_;
  ProgressOptions options_;
  double start_;
  double drawn_ = -1e9;
  std::string shown_;
};

/// 3725 -> "1:02:05", 65 -> "1:05".
std::string format_duration(double seconds);
/// 1234567 -> "1.23M", 950 -> "950".
std::string format_count(double count);
/// 1234567 -> "1.2 MB" (powers of ten).
std::string format_bytes(double bytes);

/// The table of what was resolved, shown when a run starts: rows under headings, values aligned.
class Table {
 public:
  void heading(const std::string& title);
  void row(const std::string& key, const std::string& value);  ///< lines of `value` stay in its column
  std::string text() const;

 private:
  struct Row {
    std::string key, value;
    bool heading;
  };
  std::vector<Row> rows_;
};

}  // namespace tessera
