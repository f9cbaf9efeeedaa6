#include "trainer/session.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "recipes/error.h"
#include "recipes/said_at.h"
#include "trainer/adapt/adapt.h"
#include "trainer/adapt/freeze.h"
#include "trainer/blocks/lora.h"
#include "trainer/catalog.h"
#include "trainer/determinism.h"
#include "trainer/device.h"
#include "trainer/files.h"
#include "trainer/models/models.h"
#include "trainer/objectives/objectives.h"
#include "trainer/optimizers/optimizers.h"
#include "trainer/schedules/schedules.h"
#include "trainer/strategies.h"
#include "trainer/training_data.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

const char* group_of(const std::string& name) {
  if (is_low_rank(name)) return "low-rank";
  if (name.starts_with("embeddings.")) return "embeddings";
  return is_head(name) ? "heads" : "blocks";
}

/// Of a model that is not placed yet.
ParameterCounts count_parameters(const Model& model) {
  ParameterCounts counts;
  for (const auto& parameter : parameters_once(model)) {
    const std::string name = group_of(parameter.name);
    auto group = std::find_if(counts.groups.begin(), counts.groups.end(),
                              [&](const ParameterCounts::Group& each) { return each.name == name; });
    if (group == counts.groups.end()) group = counts.groups.insert(group, {name});
    const int64_t count = parameter.tensor.numel();
    const int64_t trained = parameter.tensor.requires_grad() ? count : 0;
    counts.all += count;
    group->all += count;
    counts.trained += trained;
    group->trained += trained;
  }
  return counts;
}

/// Errors: Error where they do not divide the ranks.
MeshSizes mesh_sizes(const Recipe& recipe, int ranks) {
  check_ranks(recipe, ranks);
  const auto& sizes = recipe.parallel;
  return {static_cast<int>(sizes.shard), static_cast<int>(sizes.context), static_cast<int>(sizes.tensor),
          static_cast<int>(sizes.pipeline)};
}

/// Makes the run's folder. Errors: Error with the recipe's place where that is impossible.
void make_run_folder(const Recipe& recipe) {
  std::error_code failure;
  fs::create_directories(recipe.run.folder, failure);
  if (failure || !fs::is_directory(recipe.run.folder)) {
    throw recipe.error("run.folder", fmt::format("cannot make the folder '{}': {}", recipe.run.folder,
                                                 failure ? failure.message() : "it is a file"));
  }
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file) throw Error(fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
}

}  // namespace

Session::Session(Recipe given, World& surrounding)
    : recipe(std::move(given)),
      world(surrounding),
      device(choose_device({recipe.train.device}, world.local_rank())),
      mesh(device.is_cuda() ? world.gpu_communicator(device.index()) : world.communicator(),
           mesh_sizes(recipe, world.size())),
      host_mesh(device.is_cuda() ? Mesh(world.communicator(), mesh_sizes(recipe, world.size())) : mesh) {
  set_determinism(recipe.train, device);
  find_checkpoint();
  open_data();
  build_model();
}

void Session::open_data() {
  start_ = open_start(recipe);
  tokenizer = open_tokenizer(recipe, start_.get());
  objective = make_objective(recipe.objective, objective_setting(recipe, tokenizer, /*with_data=*/true));
  objective->settle(recipe.objective);
  TrainingData opened = open_training_data(recipe, *objective);
  training = std::move(opened.samples);
  epoch_samples = opened.epoch_size;
  data_notes_ = std::move(opened.notes);
  validation = open_validation_data(recipe, *objective);
  if (validation && !validation->note().empty()) data_notes_.push_back(validation->note());
  const auto& train = recipe.train;
  total_steps = train.steps
                    ? *train.steps
                    : std::max<int64_t>(1, std::llround(*train.epochs * static_cast<double>(epoch_samples) /
                                                        static_cast<double>(train.global_batch)));
}

void Session::build_model() {
  model = make_model(recipe.model, {tokenizer->vocab_size(), objective->heads()});
  if (start_) fit_ = said_at(recipe, "model.from", [&] { return start_->fit(*model); });
  adapter_ = adapt_or_follow(*model, recipe, fit_.fresh, checkpoint_ ? checkpoint_->meta().step : 0);
  parts_ = cut_model(*model, recipe);
  counts_ = count_parameters(*model);
  model->set_recompute(recipe.train.recompute == Recompute::blocks);
  Distributed distributed =
      distribute(place_parameters(*model, mesh, parts_), recipe, {device, mesh, host_mesh});
  strategy = std::move(distributed.strategy);
  divide_model();
  start_pipeline();
  model->set_strategy(strategy.get());
  model->initialise(recipe.run.seed, distributed.parameters);
  model->initialise(recipe.run.seed, distributed.frozen);
  scale_learning_rates(distributed.parameters, model->blocks().size(), recipe);
  state.optimizer =
      make_optimizer(recipe.optimizer, std::move(distributed.parameters), model->named_parameters().keys());
  state.frozen = std::move(distributed.frozen);
  learning_rate = state.optimizer->base_learning_rate();
  schedule = make_schedule(recipe.schedule);
  if (recipe.train.precision == Precision::fp16) {
    state.loss_scale =
        std::make_unique<LossScale>(LossScaleOptions{.initial = recipe.train.loss_scale}, device);
  }
  if (recipe.train.ema > 0) {
    state.average = std::make_unique<WeightAverage>(state.optimizer->parameters(), recipe.train.ema);
  }
}

/// Layers and sequences; batches then go the same way.
void Session::divide_model() {
  division_.multiple = mesh.size(Axis::tensor);
  if (mesh.size(Axis::tensor) > 1) model->divide_layers(TensorSplit(mesh.along(Axis::tensor)));
  const int size = mesh.size(Axis::context), rank = mesh.coordinate(Axis::context);
  if (size == 1) return;
  const ContextMethod method = recipe.parallel.context_method;
  const bool zigzag = context_zigzag(method, model->causal());
  model->divide_sequences({mesh.along(Axis::context), method});
  division_.multiple *= zigzag ? 2 * size : size;
  division_.positions = [=](int64_t columns) { return context_positions(columns, rank, size, zigzag); };
}

void Session::start_pipeline() {
  if (parts_.stages == 1) return;
  division_.columns = recipe.data.sequence_length;
  const auto hidden = at::TensorOptions(scalar_type(recipe.train.precision)).device(device);
  pipeline = std::make_unique<PipelineStep>(PipelineWork{*model, *objective, *strategy, parts_}, recipe, mesh,
                                            hidden);
}

void Session::resume() {
  if (world.rank() == 0) make_run_folder(recipe);
  world.communicator().barrier();
  log = std::make_unique<RunLog>(recipe, world.rank());
  const std::string unused = device_notice({recipe.train.device});
  if (!unused.empty()) log->notice(unused);
  for (const auto& skipped : newest_.skipped) log->notice("skipped a damaged checkpoint: " + skipped);
  if (checkpoint_) {
    restore(*checkpoint_, /*own=*/!newest_.path.empty());
  } else {
    load_start();
  }
  start_.reset();
  checkpoint_.reset();
  CheckpointOptions options;
  options.folder = recipe.run.folder + "/checkpoints";
  options.rank = world.rank();
  options.size = world.size();
  options.gather_text = [this](const std::string& text) { return world.communicator().gather_text(text); };
  options.keep =
      recipe.checkpoint.keep > 0 ? static_cast<int>(recipe.checkpoint.keep) : std::numeric_limits<int>::max();
  options.keep_best = recipe.checkpoint.keep_best;
  options.background = recipe.checkpoint.background;
  options.check = [this] { mesh.world().check(); };
  writer = std::make_unique<CheckpointWriter>(options);
  if (world.rank() == 0) write_file(recipe.run.folder + "/recipe.yaml", dump(recipe, catalog()));
  log->start(state.step, total_steps);
  if (recipe.parallel.offload != Offload::none && device.is_cpu()) {
    log->notice("parallel.offload spares no memory on the CPU: the model is in the host's memory already");
  }
  start_loader();
}

void Session::start_loader() {
  LoaderOptions options;
  options.global_batch = recipe.train.global_batch;
  options.micro_batch = recipe.train.micro_batch;
  options.rank = mesh.data().rank();
  options.ranks = mesh.data().size();
  options.prefetch = static_cast<int>(recipe.data.prefetch);
  options.samples = state.samples;
  loader = std::make_unique<Loader<Batch>>(
      training, options, [this](const std::vector<Example>& examples) { return collate(examples); });
}

/// Called by the loader's threads too, which have the time to page-lock what will go to a GPU.
Batch Session::collate(const std::vector<Example>& examples) const {
  const Batch batch = divide(objective->collate(examples), division_);
  return device.is_cuda() ? batch.pinned() : batch;
}

void Session::save(std::optional<double> score) {
  CheckpointMeta meta;
  meta.step = state.step;
  meta.samples = state.samples;
  meta.seed = recipe.run.seed;
  meta.score = score;
  meta.recipe = dump(recipe, catalog());
  meta.tokenizer = tokenizer->json();
  meta.state_json = state.numbers();
  meta.layout = mesh.describe();
  writer->save(meta, share_out(state.pieces(world.rank(), world.size())));
}

EvaluateOptions Session::evaluate_options() const {
  EvaluateOptions options;
  options.micro_batch =
      recipe.evaluate.micro_batch > 0 ? recipe.evaluate.micro_batch : recipe.train.micro_batch;
  options.max_samples = recipe.evaluate.batches * recipe.train.global_batch;
  options.device = device;
  options.data = mesh.data();
  options.host = world.communicator();
  options.counts = mesh.speaks();
  if (pipeline) options.loss = [this](const Batch& batch) { return pipeline->evaluate(batch); };
  options.collate = [this](const std::vector<Example>& examples) { return collate(examples); };
  return options;
}

Table Session::start_table() const {
  const BatchArithmetic batch = batch_arithmetic(recipe, world.size());
  Table table;
  table.heading("run");
  table.row("folder", recipe.run.folder);
  table.row("start", resumed_from_.empty() ? "new"
                     : state.step == 0     ? resumed_from_
                                           : fmt::format("after step {} ({})", state.step, resumed_from_));
  table.row("steps", fmt::format("{} ({:.2f} epochs of {} samples)", total_steps,
                                 static_cast<double>(total_steps * recipe.train.global_batch) /
                                     static_cast<double>(std::max<int64_t>(epoch_samples, 1)),
                                 format_count(static_cast<double>(epoch_samples))));
  table.heading("model");
  table.row("family", recipe.model.name());
  const auto count = [](int64_t number) { return format_count(static_cast<double>(number)); };
  table.row("parameters", count(counts_.all));
  if (counts_.trained < counts_.all) {
    std::vector<std::string> groups;
    for (const auto& group : counts_.groups) {
      groups.push_back(fmt::format("{} {} of {}", group.name, count(group.trained), count(group.all)));
    }
    const double share = static_cast<double>(counts_.trained) / static_cast<double>(counts_.all);
    table.row("trained", fmt::format("{} ({:.2f} %): {}", count(counts_.trained), 100 * share, join(groups)));
  }
  table.row("precision", names_of(recipe.train.precision)[static_cast<size_t>(recipe.train.precision)]);
  table.row("objective", fmt::format("{} ({})", recipe.objective.name(), join(objective->terms(), " + ")));
  table.heading("data");
  std::vector<std::string> paths;
  for (const auto& source : recipe.data.train.sources) paths.push_back(source.path);
  table.row("train", join(paths));
  table.row("validation", recipe.data.validation.value_or("none"));
  for (const auto& note : data_notes_) table.row("samples", note);
  table.row("tokenizer", fmt::format("{} tokens", tokenizer->vocab_size()));
  table.heading("ranks");
  table.row("mesh", mesh.describe());
  table.row("device", device.str() + fmt::format(", {} threads per rank", at::get_num_threads()));
  table.row("batch",
            fmt::format("{} = {} ranks x {} x {} accumulated, {} tokens each", batch.global_batch,
                        batch.replicas, batch.micro_batch, batch.accumulation, recipe.data.sequence_length));
  return table;
}

/// Peak memory, where the last step's messages spent their time, what this rank has sent since the last call,
/// and how a pipeline's last step divides into work and waiting.
void Session::profile(std::vector<Metric>& values) {
  values.emplace_back("peak_memory_mib", peak_memory_mib(device));
  double reduce = 0, exposed = 0;
  for (const auto& message : strategy->statistics()) {
    reduce += message.seconds;
    exposed += message.exposed;
  }
  values.emplace_back("reduce_seconds", reduce);
  values.emplace_back("reduce_exposed_seconds", exposed);
  for (const auto& [group, sent] : mesh.traffic()) {
    values.emplace_back("sent_bytes_" + group, static_cast<double>(sent.bytes - sent_before_[group]));
    sent_before_[group] = sent.bytes;
  }
  if (!pipeline) return;
  values.emplace_back("pipeline_computed_seconds", pipeline->seconds().computed);
  values.emplace_back("pipeline_waited_seconds", pipeline->seconds().waited);
}

}  // namespace tessera
