// What a session starts from: a checkpoint, or the model that model.from names.
#include <fmt/format.h>

#include <algorithm>

#include "recipes/error.h"
#include "recipes/said_at.h"
#include "trainer/adapt/adapt.h"
#include "trainer/adapt/freeze.h"
#include "trainer/catalog.h"
#include "trainer/session.h"

namespace tessera {

/// The one that run.resume asks for, if there is one.
void Session::find_checkpoint() {
  const std::string checkpoints = recipe.run.folder + "/checkpoints";
  newest_ = newest_checkpoint(checkpoints);
  const auto open = [this](const std::string& path) {
    checkpoint_ = std::make_unique<CheckpointReader>(CheckpointReader::open(path));
  };
  if (recipe.run.resume == "never") {
    if (newest_.path.empty() && newest_.skipped.empty()) return;
    throw recipe.error(
        "run.resume",
        fmt::format("never, but {} has checkpoints; valid: another run.folder, or auto", recipe.run.folder));
  }
  if (!newest_.path.empty()) {
    open(newest_.path);
  } else if (recipe.run.resume != "auto") {
    open(recipe.run.resume);
  } else if (!newest_.skipped.empty()) {
    throw Error(
        fmt::format("{}: no whole checkpoint is left to resume from; move the folder away to begin anew: {}",
                    checkpoints, join(newest_.skipped, "; ")));
  }
}

/// The weights of model.from, where there is one.
void Session::load_start() {
  if (!start_) return;
  if (!fit_.fresh.empty()) log->notice("drawn anew: " + join(name_patterns(fit_.fresh)));
  if (!fit_.unused.empty()) log->notice("not used: " + join(name_patterns(fit_.unused)));
  const auto& trained = state.optimizer->parameters();
  load_base(trained);
  start_->load_magnitudes(*model, trained);
  for (const auto& parameter : trained) {
    const auto found = adapter_.find(parameter.name);
    if (found != adapter_.end()) parameter.placement.copy_part(found->second, parameter.master.detach());
  }
  refresh_working(trained);
  adapter_.clear();
  if (state.average) state.average = std::make_unique<WeightAverage>(trained, recipe.train.ema);
  strategy->parameters_loaded();
  resumed_from_ = start_->folder();
}

/// The frozen parameters, and these, from model.from.
void Session::load_base(const std::vector<Parameter>& trained) {
  said_at(recipe, "model.from", [&] {
    start_->load(*model, trained);
    start_->load(*model, state.frozen);
  });
  if (!keeps_base(recipe)) return;
  state.base = world.communicator().gather_text(world.rank() == 0 ? start_->hash() : "").front();
}

void Session::restore(const CheckpointReader& reader, bool own) {
  check_same_run(reader, own);
  if (keeps_base(recipe)) load_base({});
  restore_stages(reader);
  strategy->parameters_loaded();
  resumed_from_ = reader.folder();
}

/// Parameters that train since a later stage have their own first step.
void Session::restore_stages(const CheckpointReader& reader) {
  const auto* options = recipe.adapt.get_if<FreezeOptions>();
  if (!options) return state.restore(reader);
  const auto num_blocks = static_cast<int64_t>(model->blocks().size());
  const size_t stage = stage_of(*options, reader.meta().step);
  const auto since = [&](const std::string& name) {
    return trained_since(*options, stage, name, num_blocks);
  };
  state.restore(reader, since);
  state.stage_steps.resize(std::max(state.stage_steps.size(), stage + 1), state.optimizer->num_steps());
  std::vector<int64_t> first_steps;
  for (const auto& parameter : state.optimizer->parameters()) {
    first_steps.push_back(state.stage_steps[since(parameter.name)]);
  }
  state.optimizer->set_first_steps(std::move(first_steps));
}

/// Says what differs between the checkpoint's recipe and this one; refuses what would make it another run.
/// From another run's checkpoint a new phase may begin, with other data say.
void Session::check_same_run(const CheckpointReader& reader, bool own) const {
  const std::string origin = reader.folder() + "/checkpoint.h5";
  const Recipe before = read_recipe_text(reader.meta().recipe, origin, {}, catalog());
  std::vector<std::string> refused;
  for (const auto& difference : differences(before, recipe, catalog())) {
    if (difference.changeable || (difference.new_phase && !own)) {
      log->notice("resuming with a change: " + difference.text());
    } else {
      refused.push_back(difference.text());
    }
  }
  if (!refused.empty()) {
    throw Error(fmt::format("{}: {} is of another run ({}); valid: the same values, or another run.folder",
                            recipe.origin, reader.folder(), join(refused, "; ")));
  }
}

}  // namespace tessera
