#pragma once
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "datasets/loader.h"
#include "datasets/open.h"
#include "parallel/mesh.h"
#include "parallel/strategy.h"
#include "parallel/world.h"
#include "recipes/recipe.h"
#include "trainer/batch.h"
#include "trainer/batch_division.h"
#include "trainer/evaluate.h"
#include "trainer/model.h"
#include "trainer/objective.h"
#include "trainer/pipeline_step.h"
#include "trainer/run_log.h"
#include "trainer/schedules/schedules.h"
#include "trainer/start_model.h"
#include "trainer/training_state.h"

namespace tessera {

/// Of a whole model, tied ones once.
struct ParameterCounts {
  struct Group {
    std::string name;
    int64_t all = 0, trained = 0;
  };
  int64_t all = 0, trained = 0;
  std::vector<Group> groups;
};

/// Everything that a recipe names, made and connected on this rank: what the loop works with.
class Session {
 public:
  /// Opens data, builds the model with its first weights, starts nothing yet. Errors: Error with the recipe's
  /// place.
  Session(Recipe recipe, World& world);

  /// Continues from the checkpoint that run.resume asks for, if there is one, and starts the loader there.
  void resume();
  /// What was resolved, for whoever looks at the start.
  Table start_table() const;
  /// Saves the state in the background; `score` is the validation loss of these weights, where it is known.
  void save(std::optional<double> score);
  EvaluateOptions evaluate_options() const;
  /// Whether this rank is the one that tells of its samples.
  bool speaks_for_samples() const { return mesh.speaks() && mesh.coordinate(Axis::context) == 0; }
  /// Adds where time and memory go, for log.profile.
  void profile(std::vector<Metric>& values);

  Recipe recipe;
  World& world;
  at::Device device;
  Mesh mesh;       ///< its communicators carry tensors of `device`
  Mesh host_mesh;  ///< the same, for CPU tensors
  TokenizerPtr tokenizer;
  ObjectivePtr objective;
  DatasetPtr training;    ///< endless: global sample index -> sample, epoch after epoch
  DatasetPtr validation;  ///< null where there is none
  int64_t epoch_samples = 0;
  int64_t total_steps = 0;
  ModelPtr model;
  TrainingState state;
  double learning_rate = 0;  ///< the schedule's 1
  Schedule schedule;
  std::unique_ptr<Strategy> strategy;
  std::unique_ptr<PipelineStep> pipeline;  ///< null without one
  std::unique_ptr<Loader<Batch>> loader;
  std::unique_ptr<CheckpointWriter> writer;
  std::unique_ptr<RunLog> log;

 private:
  void find_checkpoint();
  void open_data();
  void build_model();
  void divide_model();
  void start_pipeline();
  void start_loader();
  Batch collate(const std::vector<Example>& examples) const;
  void restore(const CheckpointReader& reader, bool own);
  void restore_stages(const CheckpointReader& reader);
  void load_start();
  void load_base(const std::vector<Parameter>& trained);
  void check_same_run(const CheckpointReader& reader, bool own) const;

  std::map<std::string, int64_t> sent_before_;  // by group of ranks, at the last profile()
  BatchDivision division_;
  PipelineParts parts_;
  std::vector<std::string> data_notes_;
  ParameterCounts counts_;
  NewestCheckpoint newest_;                       // of this run's own
  std::unique_ptr<CheckpointReader> checkpoint_;  // to resume from; null once that is done
  std::string resumed_from_;
  std::unique_ptr<StartModel> start_;  // null without model.from, and once it has been read
  StartModel::Fit fit_;
  std::map<std::string, at::Tensor> adapter_;  // adapt.from: values by parameter, whole
};

}  // namespace tessera
