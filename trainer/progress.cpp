#include "trainer/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace tessera {
namespace {

double steady_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string bar(double share, int width) {
  static constexpr std::array<const char*, 8> eighths = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  const int filled = static_cast<int>(std::clamp(share, 0.0, 1.0) * width * 8);
  std::string text;
  for (int i = 0; i < filled / 8; ++i) text += "█";
  text += eighths[static_cast<size_t>(filled % 8)];
  for (int i = filled / 8 + (filled % 8 != 0); i < width; ++i) text += " ";
  return "▕" + text + "▏";
}

std::string scaled(double value, const char* const* units, double base) {
  int unit = 0;
  for (; unit < 5 && std::abs(value) >= base; ++unit) value /= base;
  const int digits = unit == 0 || std::abs(value) >= 100 ? 0 : std::abs(value) >= 10 ? 1 : 2;
  return fmt::format("{:.{}f}{}", value, digits, units[unit]);
}

}  // namespace

std::string format_duration(double seconds) {
  const auto whole = static_cast<int64_t>(std::llround(std::max(0.0, seconds)));
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

std::string format_count(double count) {
  static constexpr const char* units[] = {"", "k", "M", "B", "T", "P"};
  return scaled(count, units, 1000);
}

std::string format_bytes(double bytes) {
  static constexpr const char* units[] = {" B", " kB", " MB", " GB", " TB", " PB"};
  return scaled(bytes, units, 1000);
}

Progress::Progress(std::ostream& out, ProgressOptions options) : out_(out), options_(std::move(options)) {
  if (!options_.clock) options_.clock = steady_seconds;
  start_ = options_.clock();
}

std::string Progress::line(int64_t step, const ProgressNumbers& numbers) const {
  const auto done = static_cast<double>(step - options_.first_step);
  const auto left = static_cast<double>(options_.total - step);
  const double elapsed = options_.clock() - start_;
  const std::string numbers_text =
      fmt::format("loss {:.4f}  lr {:.2e}  {} tok/s", numbers.loss, numbers.learning_rate,
                  format_count(numbers.tokens_per_second));
  const std::string eta = done > 0 ? format_duration(elapsed / done * left) : "?";
  if (!options_.terminal) {
    return fmt::format("step {}/{}  {}  elapsed {}  left {}", step, options_.total, numbers_text,
                       format_duration(elapsed), eta);
  }
  const std::string head = fmt::format("{}/{}", step, options_.total);
  const std::string tail = fmt::format("  {}  left {}", numbers_text, eta);
  const int width = options_.columns - static_cast<int>(head.size() + tail.size()) - 4;
  const double share = static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, options_.total));
  return head + (width >= 5 ? " " + bar(share, std::min(width, 40)) : "") + tail;
}

void Progress::update(int64_t step, const ProgressNumbers& numbers) {
  const bool last = step >= options_.total;
  if (!options_.terminal) {
    if (last || step == options_.first_step + 1 || step % options_.every == 0) {
      out_ << line(step, numbers) << '\n' << std::flush;
    }
    return;
  }
  const double now = options_.clock();
  if (!last && now - drawn_ < 0.1) return;
  drawn_ = now;
  shown_ = line(step, numbers);
  out_ << "\r\x1b[K" << shown_ << std::flush;
}

void Progress::note(const std::string& text) {
  if (options_.terminal) out_ << "\r\x1b[K";
  out_ << text << '\n' << shown_ << std::flush;
}

void Progress::finish() {
  if (!shown_.empty()) out_ << '\n' << std::flush;
  shown_.clear();
}

void Table::heading(const std::string& title) { rows_.push_back({title, "", true}); }

void Table::row(const std::string& key, const std::string& value) { rows_.push_back({key, value, false}); }

std::string Table::text() const {
  size_t width = 0;
  for (const auto& row : rows_) {
    if (!row.heading) width = std::max(width, row.key.size());
  }
  std::string text;
  for (const auto& row : rows_) {
    if (row.heading) {
      text += row.key + "\n";
      continue;
    }
    text += fmt::format("  {:<{}}  ", row.key, width);
    for (const char c : row.value) {
      text += c;
      if (c == '\n') text += std::string(width + 4, ' ');
    }
    text += "\n";
  }
  return text;
}

}  // namespace tessera
