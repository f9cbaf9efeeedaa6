#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tessera {

/// A measurement: "loss" or "validation/loss", and its value.
using Metric = std::pair<std::string, double>;

/// metrics.jsonl: a line of JSON per entry, {"step": 10, "loss": 2.5, …}; numbers that are not finite become
/// null. A line is one write at the end of the file, so that a crash tears at most the last one.
class MetricsLog {
 public:
  /// Appends to `path`; lines of steps later than `resumed_step` and a torn last line are cut off first, so
  /// that the curve of a resumed run has no step twice. 0 starts anew. Errors: Error naming the path.
  MetricsLog(std::string path, int64_t resumed_step);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void write(int64_t step, const std::vector<Metric>& metrics);

 private:
  std::string path_;
  int file_ = -1;
};

/// A TensorBoard event file in `folder` (events.out.tfevents.<seconds>.<host>.<process>); each run, resumed
/// or not, makes its own, and TensorBoard drops what earlier ones have beyond the resumed step.
class EventWriter {
 public:
  EventWriter(const std::string& folder, int64_t resumed_step);
  ~EventWriter();
  EventWriter(const EventWriter&) = delete;
  EventWriter& operator=(const EventWriter&) = delete;

  void scalars(int64_t step, const std::vector<Metric>& metrics);
  /// Markdown, shown on TensorBoard's text page.
  void text(int64_t step, const std::string& tag, const std::string& markdown);

  const std::string& path() const { return path_; }

 private:
  void event(int64_t step, const std::string& content);

  std::string path_;
  int file_ = -1;
};

/// CRC-32C (Castagnoli), as TensorBoard's records use it.
uint32_t crc32c(const std::string& bytes);

}  // namespace tessera
