#pragma once
#include <memory>
#include <string>
#include <vector>

#include "recipes/error.h"
#include "recipes/registry.h"
#include "recipes/sections.h"

namespace tessera {

/// What one run does, all checked. Sections and their keys: docs/recipes.md, or sections.h.
struct Recipe {
  RunSection run;
  Choice model;
  Choice objective;
  DataSection data;
  Choice optimizer;
  Choice schedule;
  Choice adapt;
  TrainSection train;
  ParallelSection parallel;
  CheckpointSection checkpoint;
  EvaluateSection evaluate;
  LogSection log;

  std::string origin;                     ///< the file
  std::shared_ptr<const Section> source;  ///< what was written, merged: knows the places

  /// An Error about `key` ("data.train") that begins with the place where it was written. For mistakes found
  /// only when the run starts (a file that is not there, a vocabulary that does not fit).
  Error error(const std::string& key, const std::string& what) const;
};

template <class V>
void fields(Recipe& recipe, const Catalog& catalog, V& v) {
  v("run", recipe.run, "where the run lives");
  v("model", recipe.model, "the model", from(catalog.model));
  v("objective", recipe.objective, "what is learned", from(catalog.objective));
  v("data", recipe.data, "what is learned from");
  v("optimizer", recipe.optimizer, "how parameters follow gradients", from(catalog.optimizer));
  v("schedule", recipe.schedule, "the learning rate over time", from(catalog.schedule));
  v("adapt", recipe.adapt, "which parameters are trained", from(catalog.adapt));
  v("train", recipe.train, "length, batch and numerics");
  v("parallel", recipe.parallel, "how work is divided over the ranks");
  v("checkpoint", recipe.checkpoint, "what is kept");
  v("evaluate", recipe.evaluate, "validation");
  v("log", recipe.log, "what is reported");
}

/// Reads the model in the folder that `model.from` names, the file, what it includes, and the overrides
/// ("train.steps=100"); later ones win: overrides, the file, its includes, the folder's model.
/// Errors: one Error with all problems, a line each: `file:line:column key: what; valid: …; did you mean …`.
Recipe read_recipe(const std::string& path, const std::vector<std::string>& overrides,
                   const Catalog& catalog);

/// The same for a text at hand, such as the resolved recipe in a checkpoint, which needs no folder any more;
/// `origin` stands for the file in messages.
Recipe read_recipe_text(std::string_view text, const std::string& origin,
                        const std::vector<std::string>& overrides, const Catalog& catalog);

/// The resolved recipe, every key with its value, as YAML that read_recipe_text() reads back.
std::string dump(const Recipe& recipe, const Catalog& catalog);

struct Difference {
  std::string key, before, after;  ///< values as YAML on one line; "" where there is none
  bool changeable = false;         ///< harmless: a run may resume with it
  bool new_phase = false;          ///< changeable, or a run may start with it from another run's checkpoint
  std::string text() const { return key + ": " + before + " -> " + after; }
};

/// What changed between two recipes, defaults resolved, in the order of the dump.
std::vector<Difference> differences(const Recipe& before, const Recipe& after, const Catalog& catalog);

/// What the number of ranks must fit. Errors: one Error that spells the arithmetic and the nearest valid
/// values.
void check_ranks(const Recipe& recipe, int ranks);

/// How a step's batch is made of micro-batches; check_ranks() has passed.
struct BatchArithmetic {
  int64_t global_batch, micro_batch, replicas, accumulation;  ///< global = replicas x micro x accumulation
};
BatchArithmetic batch_arithmetic(const Recipe& recipe, int ranks);

/// docs/recipes.md: every section and key with type, default and meaning.
std::string reference(const Catalog& catalog);

}  // namespace tessera
