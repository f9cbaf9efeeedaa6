#include "trainer/prediction_files.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "recipes/error.h"

namespace tessera {

void write_prediction_lines(const std::string& path, const std::vector<std::string>& lines) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  for (const auto& line : lines) file << line << '\n';
  file.close();
  if (!file) throw Error(fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
}

void write_predictions(const std::string& folder, int64_t step, const Objective& objective,
                       const Predicted& predicted) {
  if (!predicted.rows.defined()) return;
  write_prediction_lines(fmt::format("{}/predictions-{}.jsonl", folder, step),
                         objective.prediction_lines(predicted.rows, predicted.dataset));
  const Confusion confusion = objective.confusion(predicted.rows);
  if (confusion.labels.empty()) return;
  const nlohmann::ordered_json json{{"labels", confusion.labels}, {"counts", confusion.counts}};
  write_prediction_lines(fmt::format("{}/confusion-{}.json", folder, step), {json.dump()});
}

std::string confusion_table(const Confusion& confusion) {
  constexpr size_t most = 12;
  const size_t size = confusion.labels.size();
  if (size == 0 || size > most) return {};
  size_t width = 8;
  for (const auto& label : confusion.labels) width = std::max(width, label.size() + 2);
  std::string text = fmt::format("{:<{}}", "truth", width);
  for (const auto& label : confusion.labels) text += fmt::format("{:>{}}", label, width);
  text += "   (columns: predictions)\n";
  for (size_t truth = 0; truth < size; ++truth) {
    text += fmt::format("{:<{}}", confusion.labels[truth], width);
    for (const int64_t count : confusion.counts[truth]) text += fmt::format("{:>{}}", count, width);
    text += '\n';
  }
  return text;
}

}  // namespace tessera
