#include "trainer/training_state.h"

#include <nlohmann/json.hpp>

#include "recipes/error.h"

namespace tessera {
namespace {

/// The tensors of a state under the names that they have in a checkpoint.
std::vector<std::pair<std::string, at::Tensor>> named_tensors(const TrainingState& state) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const auto& parameter : state.optimizer->parameters()) {
    tensors.emplace_back("model/" + parameter.name, parameter.master);
  }
  for (const auto& [name, tensor] : state.optimizer->state())
    tensors.emplace_back("optimizer/" + name, tensor);
  if (state.loss_scale) {
    for (const auto& [name, tensor] : state.loss_scale->state())
      tensors.emplace_back("loss_scale/" + name, tensor);
  }
  if (state.average) {
    for (const auto& [name, tensor] : state.average->state()) tensors.emplace_back(name, tensor);
  }
  return tensors;
}

}  // namespace

std::vector<TensorPiece> TrainingState::pieces() const {
  std::vector<TensorPiece> pieces;
  for (const auto& [name, tensor] : named_tensors(*this))
    pieces.push_back(whole_piece(name, tensor.detach()));
  return pieces;
}

std::string TrainingState::numbers() const {
  return nlohmann::json{{"optimizer_steps", optimizer->num_steps()}}.dump();
}

void TrainingState::restore(const CheckpointReader& reader) {
  step = reader.meta().step;
  samples = reader.meta().samples;
  for (const auto& [name, tensor] : named_tensors(*this)) {
    const bool optional = name.rfind("ema/", 0) == 0 || name.rfind("loss_scale/", 0) == 0;
    if (optional && !reader.has(name)) continue;  // switched on since: starts from here
    reader.read_into(name, std::vector<int64_t>(static_cast<size_t>(tensor.dim()), 0), tensor.detach());
  }
  const auto numbers = nlohmann::json::parse(reader.meta().state_json, nullptr, false);
  if (!numbers.is_object() || !numbers.contains("optimizer_steps")) {
    throw Error(reader.folder() + ": the state has no optimizer_steps");
  }
  optimizer->set_num_steps(numbers["optimizer_steps"].get<int64_t>());
  refresh_working(optimizer->parameters());
}

}  // namespace tessera
