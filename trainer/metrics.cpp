#include "trainer/metrics.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "recipes/error.h"
#include "trainer/files.h"

namespace tessera {
namespace {

/// The length of the leading part of the file whose lines are whole and not later than `last_step`.
int64_t valid_length(const std::string& path, int64_t last_step) {
  std::ifstream file(path, std::ios::binary);
  int64_t length = 0;
  for (std::string line; std::getline(file, line) && !file.eof();) {
    const auto parsed = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!parsed.is_object() || !parsed.contains("step") || !parsed["step"].is_number_integer()) break;
    if (parsed["step"].get<int64_t>() > last_step) break;
    length += static_cast<int64_t>(line.size()) + 1;
  }
  return length;
}

std::string number(double value) { return std::isfinite(value) ? fmt::format("{}", value) : "null"; }

}  // namespace

MetricsLog::MetricsLog(std::string path, int64_t resumed_step) : path_(std::move(path)) {
  file_ = open_for_append(path_);
  if (::ftruncate(file_, resumed_step > 0 ? valid_length(path_, resumed_step) : 0) != 0) {
    throw Error(fmt::format("{}: cannot cut off later steps: {}", path_, std::strerror(errno)));
  }
}

MetricsLog::~MetricsLog() { ::close(file_); }

void MetricsLog::write(int64_t step, const std::vector<Metric>& metrics) {
  std::string line = fmt::format("{{\"step\": {}", step);
  for (const auto& [name, value] : metrics) {
    line += fmt::format(", {}: {}", nlohmann::json(name).dump(), number(value));
  }
  append_whole(file_, line + "}\n", path_);
}

}  // namespace tessera
