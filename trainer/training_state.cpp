#include "trainer/training_state.h"

#include <nlohmann/json.hpp>

#include "recipes/error.h"

namespace tessera {

std::vector<TensorPiece> TrainingState::pieces(int rank, int ranks) const {
  std::vector<TensorPiece> pieces;
  const auto add = [&](const std::string& group, const std::vector<TensorPiece>& more) {
    for (TensorPiece piece : more) {
      piece.name = group + piece.name;
      pieces.push_back(std::move(piece));
    }
  };
  for (const auto& parameter : optimizer->parameters()) {
    pieces.push_back(parameter.placement.piece("model/" + parameter.name, parameter.master.detach()));
  }
  for (const auto& parameter : frozen) {
    if (!base.empty()) break;
    pieces.push_back(parameter.placement.piece("model/" + parameter.name, parameter.master.detach()));
  }
  add("optimizer/", optimizer->state());
  if (average) add("", average->state());
  if (!loss_scale) return pieces;
  const size_t first = pieces.size();
  add("loss_scale/", loss_scale->state());
  for (size_t i = first; i < pieces.size(); ++i)
    pieces[i].holder = rank, pieces[i].holders = ranks, pieces[i].kind = -1;
  return pieces;
}

std::string TrainingState::numbers() const {
  nlohmann::json numbers{{"optimizer_steps", optimizer->num_steps()}, {"num_stale", num_stale}};
  if (best_score) numbers["best_score"] = *best_score;
  if (!base.empty()) numbers["base"] = base;
  if (stage_steps.size() > 1) numbers["stage_steps"] = stage_steps;
  return numbers.dump();
}

void TrainingState::restore(const CheckpointReader& reader,
                            const std::function<size_t(const std::string& parameter)>& since) {
  const auto numbers = nlohmann::json::parse(reader.meta().state_json, nullptr, false);
  if (!numbers.is_object() || !numbers.contains("optimizer_steps")) {
    throw Error(reader.folder() + ": the state has no optimizer_steps");
  }
  if (!base.empty() && numbers.value("base", "") != base) {
    throw Error(reader.folder() +
                ": was trained on another base than model.from holds now; valid: the folder as it was");
  }
  step = reader.meta().step;
  samples = reader.meta().samples;
  const auto read = [&](const TensorPiece& piece) {
    reader.read_into(piece.name, piece.offset, piece.local);
  };
  for (const auto& piece : pieces(0, 1)) {
    if (piece.name.starts_with("model/")) read(piece);
  }
  if (average) average->restart();
  stage_steps = numbers.value("stage_steps", std::vector<int64_t>{0});
  const auto joins = [&](const std::string& name) { return since && since(name) >= stage_steps.size(); };
  for (const auto& piece : pieces(0, 1)) {
    if (piece.name.starts_with("model/")) continue;
    // Switched on since, or not trained before: starts from here.
    const bool optional = piece.name.starts_with("ema/") || piece.name.starts_with("loss_scale/") ||
                          joins(piece.name.substr(piece.name.rfind('/') + 1));
    if (!optional || reader.has(piece.name)) read(piece);
  }
  optimizer->set_num_steps(numbers["optimizer_steps"].get<int64_t>());
  if (numbers.contains("best_score")) best_score = numbers["best_score"].get<double>();
  num_stale = numbers.value("num_stale", int64_t{0});
  refresh_working(optimizer->parameters());
}

}  // namespace tessera
