// The training loop, from top to bottom: run() is a run, train_step() a step.
#include "trainer/train.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>

#include "datasets/loader.h"
#include "trainer/adapt/adapt.h"
#include "trainer/batch_mover.h"
#include "trainer/evaluate.h"
#include "trainer/files.h"
#include "trainer/gradients.h"
#include "trainer/prediction_files.h"
#include "trainer/run_log.h"
#include "trainer/score_metric.h"
#include "trainer/session.h"

namespace tessera {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// The micro-batches of a step, and the sums over all ranks that it needs before it begins.
struct Step {
  std::vector<Batch> micro_batches;  // on the host
  BatchMover::Sent sent;
  // Summed over ranks, int64 on the host: predictions per loss term, tokens, ranks told to stop, their
  // signals.
  at::Tensor facts;
  Work reduced;

  const int64_t* counts() const { return facts.data_ptr<int64_t>(); }
  int64_t tokens() const { return counts()[facts.size(0) - 3]; }
  int signal() const {
    const int64_t told = counts()[facts.size(0) - 2];
    return told == 0 ? 0 : static_cast<int>(counts()[facts.size(0) - 1] / told);
  }
};

class Trainer {
 public:
  Trainer(const Recipe& recipe, World& world, const TrainHooks& hooks)
      : session_(recipe, world),
        recipe_(session_.recipe),
        world_(world),
        hooks_(hooks),
        metric_(recipe_, *session_.objective),
        mover_(session_.device) {}

  Ending run();
  /// After an error: what is being saved gets some seconds to come about.
  void give_up() const {
    if (session_.writer) session_.writer->wait_for(std::chrono::seconds(10));
  }

 private:
  void report_start() const;
  Step fetch();
  void train_step(Step& step);
  LossTerms forward(const Batch& batch, const DropoutState& dropout) const;
  at::Tensor add_up(const LossTerms& terms, const at::Tensor& weights);
  void apply_gradients();
  void log_step(const Step& step);
  void log_samples(const Step& step) const;
  void check_finite();
  void validate();
  void save();
  bool due(int64_t every) const { return every > 0 && state().step % every == 0; }
  bool last_step() const { return state().step == session_.total_steps; }
  bool out_of_patience() const {
    return recipe_.evaluate.patience > 0 && state().num_stale >= recipe_.evaluate.patience;
  }
  TrainingState& state() { return session_.state; }
  const TrainingState& state() const { return session_.state; }

  Session session_;
  const Recipe& recipe_;
  World& world_;
  const TrainHooks& hooks_;
  ScoreMetric metric_;
  BatchMover mover_;

  at::Tensor sums_, correct_;                        // of the current step, [terms] float32, this rank's
  at::Tensor norm_;                                  // of the last gradients, 0-dim
  at::Tensor num_not_finite_;                        // norms since the last check, 0-dim float32
  double learning_rate_ = 0;                         // of the last step
  std::optional<double> score_;                      // of the weights as they are, where it is known
  Clock::time_point interval_start_ = Clock::now();  // since the last line of metrics
  int64_t interval_tokens_ = 0, interval_steps_ = 0;
  double data_seconds_ = 0;
};

Ending Trainer::run() {
  session_.resume();
  report_start();
  if (last_step() || out_of_patience()) return {state().step};
  num_not_finite_ = at::zeros({}, at::TensorOptions(session_.device).dtype(at::kFloat));
  const int64_t last = recipe_.train.stop_after > 0 ? std::min(recipe_.train.stop_after, session_.total_steps)
                                                    : session_.total_steps;
  const int64_t end = std::min(last, next_stage(recipe_, state().step).value_or(last));
  interval_start_ = Clock::now();
  Step next = fetch();
  while (state().step < end) {
    Step step = std::exchange(next, {});
    step.reduced.wait();
    if (const int signal = step.signal()) {
      save();
      session_.writer->wait();
      return {state().step, signal};
    }
    world_.set_step(state().step + 1);
    if (state().step + 1 < end) next = fetch();  // its facts travel while this step computes
    train_step(step);
    if (recipe_.log.samples && session_.speaks_for_samples()) log_samples(step);
    if (due(recipe_.log.every) || last_step()) log_step(step);
    if (due(recipe_.evaluate.every) || last_step()) validate();
    if (due(recipe_.checkpoint.every) || state().step == end || out_of_patience()) save();
    if (out_of_patience()) {
      session_.log->notice(
          fmt::format("stopped: no better {} in {} evaluations", metric_.name(), state().num_stale));
      break;
    }
  }
  session_.writer->wait();
  if (end < last && !out_of_patience()) {
    world_.communicator().barrier();  // rank 0's file stands under its name
    return {.step = state().step, .goes_on = true};
  }
  session_.log->finish();
  return {state().step};
}

void Trainer::report_start() const {
  if (world_.rank() != 0) return;
  Table table = session_.start_table();
  if (hooks_.plan) hooks_.plan(session_.recipe, session_.model->vocab_size(), table);
  session_.log->table(table.text());
}

/// Takes what the loader has prepared, sends it to the device, and off this rank's part of the facts.
Step Trainer::fetch() {
  const auto start = Clock::now();
  Step step;
  step.micro_batches = session_.loader->next();
  data_seconds_ += seconds_since(start);
  step.sent = mover_.send(step.micro_batches);
  const size_t num_terms = session_.objective->terms().size();
  step.facts = at::zeros({static_cast<int64_t>(num_terms) + 3}, at::kLong);
  auto* facts = step.facts.data_ptr<int64_t>();
  for (const Batch& batch : step.micro_batches) {
    if (!session_.mesh.speaks()) break;
    for (size_t i = 0; i < num_terms; ++i) facts[i] += batch.counts[i];
    facts[num_terms] += batch.num_tokens;
  }
  const int signal = hooks_.stop_signal();
  facts[num_terms + 1] = signal != 0;
  facts[num_terms + 2] = signal;
  step.reduced = world_.communicator().all_reduce_async(step.facts);
  return step;
}

void Trainer::train_step(Step& step) {
  const auto num_terms = static_cast<int64_t>(session_.objective->terms().size());
  // Every term is a mean over the whole global batch, so what each prediction adds is divided by the global
  // count.
  const at::Tensor weights =
      to_device(step.facts.slice(0, 0, num_terms).clamp_min(1).to(at::kFloat).reciprocal(), session_.device);
  const std::vector<Batch> batches = mover_.receive(std::move(step.sent));
  sums_ = correct_ = at::zeros({num_terms}, weights.options());
  session_.strategy->begin_step();
  const DropoutState dropout{recipe_.run.seed, state().step, true};
  const auto loss = [&](const LossTerms& terms) { return add_up(terms, weights); };
  if (session_.pipeline) {
    session_.pipeline->train(batches, dropout, loss);
  } else {
    for (size_t i = 0; i < batches.size(); ++i) {
      session_.strategy->begin_micro_step(i + 1 == batches.size());
      loss(forward(batches[i], dropout)).backward();
      session_.strategy->end_micro_step();
    }
  }
  apply_gradients();
  ++state().step;
  state().samples += recipe_.train.global_batch;
  interval_tokens_ += step.tokens();
  ++interval_steps_;
  score_.reset();
}

/// Returns with nothing but the graph holding hidden states, so that backward frees them on its way.
LossTerms Trainer::forward(const Batch& batch, const DropoutState& dropout) const {
  const at::Tensor hidden = session_.model->forward(batch, dropout);
  return session_.objective->loss(*session_.model, hidden, batch, dropout);
}

/// A micro-batch's part of the loss, differentiable; its terms are remembered for the log.
at::Tensor Trainer::add_up(const LossTerms& terms, const at::Tensor& weights) {
  sums_ = sums_ + terms.sums.detach();
  correct_ = correct_ + terms.correct;
  const at::Tensor loss = (terms.sums * weights).sum();
  return state().loss_scale ? loss * state().loss_scale->scale() : loss;
}

/// Gradients, clipped by their global norm, move the weights. Nothing here waits for the device.
void Trainer::apply_gradients() {
  const std::vector<at::Tensor> gradients = session_.strategy->finish();
  const auto& parameters = state().optimizer->parameters();
  sum_tied_gradients(gradients, parameters, session_.mesh.ends());
  sum_whole_gradients(gradients, parameters, session_.mesh.along(Axis::tensor));
  at::Tensor multiplier;
  if (state().loss_scale) multiplier = state().loss_scale->scale().reciprocal();
  const GradientScale scale = scale_and_clip(global_norm(gradients, parameters, session_.mesh.parts()),
                                             multiplier, recipe_.train.clip);
  learning_rate_ = session_.learning_rate * session_.schedule(state().step, session_.total_steps);
  state().optimizer->step(learning_rate_, gradients, scale.factor);
  session_.strategy->parameters_changed();
  if (state().loss_scale) state().loss_scale->update(scale.norm);
  if (state().average) state().average->update();
  norm_ = scale.norm;
  num_not_finite_ += at::isfinite(scale.norm).logical_not();
}

/// The only place where a step's numbers are read back.
void Trainer::log_step(const Step& step) {
  check_finite();
  const at::Tensor sums = at::stack({sums_, correct_}).to(at::kCPU, at::kDouble);
  if (!session_.mesh.speaks()) sums.zero_();
  world_.communicator().all_reduce(sums);
  const size_t num_terms = session_.objective->terms().size();
  const auto row = [&](int64_t i) {
    const auto* values = sums.data_ptr<double>() + i * static_cast<int64_t>(num_terms);
    return std::vector<double>(values, values + num_terms);
  };
  const LossReport report = make_report(session_.objective->terms(), row(0), row(1),
                                        std::vector<double>(step.counts(), step.counts() + num_terms));
  const double seconds = seconds_since(interval_start_);
  std::vector<Metric> values = {{"loss", report.loss}};
  values.insert(values.end(), report.values.begin(), report.values.end());
  values.insert(values.end(), {{"learning_rate", learning_rate_},
                               {"grad_norm", norm_.item<double>()},
                               {"tokens_per_second", static_cast<double>(interval_tokens_) / seconds},
                               {"samples", static_cast<double>(state().samples)},
                               {"data_wait_share", data_seconds_ / seconds}});
  if (state().loss_scale) {
    values.emplace_back("loss_scale", state().loss_scale->scale().item<double>());
    values.emplace_back("skipped_steps", static_cast<double>(state().loss_scale->num_skipped()));
  }
  if (recipe_.log.profile) {
    values.emplace_back("step_seconds", seconds / static_cast<double>(interval_steps_));
    session_.profile(values);
  }
  session_.log->training(state().step, values);
  interval_start_ = Clock::now();
  interval_tokens_ = interval_steps_ = 0;
  data_seconds_ = 0;
}

/// Which samples this rank consumed in the step, for audits: a line of samples/rank-R.jsonl. A step done
/// again after a crash has two lines; the later one counts.
void Trainer::log_samples(const Step& step) const {
  std::vector<int64_t> samples;
  for (const Batch& batch : step.micro_batches) {
    const auto* values = batch.samples.data_ptr<int64_t>();
    samples.insert(samples.end(), values, values + batch.samples.numel());
  }
  const std::string folder = recipe_.run.folder + "/samples";
  std::filesystem::create_directories(folder);
  const std::string path = fmt::format("{}/rank-{}.jsonl", folder, world_.rank());
  const int file = open_for_append(path);
  append_whole(file,
               fmt::format("{{\"step\": {}, \"samples\": [{}]}}\n", state().step, fmt::join(samples, ", ")),
               path);
  close(file);
}

/// A gradient that is not finite moved nothing, but means that the run has diverged. (fp16 meets some and
/// goes on.)
void Trainer::check_finite() {
  if (state().loss_scale || num_not_finite_.item<float>() == 0) return;
  throw Error(
      fmt::format("step {}: the gradients are not finite: the run has diverged and cannot go on; saved "
                  "checkpoints are not touched. "
                  "Try a lower optimizer.learning_rate, a longer schedule.warm_up, or train.clip",
                  state().step));
}

void Trainer::validate() {
  if (!session_.validation) return;
  const auto start = Clock::now();
  const auto swap = [this] {
    if (!state().average) return;
    session_.strategy->settle();
    state().average->swap();
    session_.strategy->parameters_changed();
  };
  swap();
  const EvaluateOptions options = session_.evaluate_options();
  const LossReport report = evaluate(*session_.model, *session_.objective, *session_.validation, options);
  swap();
  score_ = metric_.score(report);
  const bool better = !state().best_score || *score_ < *state().best_score;
  state().num_stale = better ? 0 : state().num_stale + 1;
  if (better) state().best_score = score_;
  if (recipe_.evaluate.predictions && world_.rank() == 0 && (last_step() || out_of_patience())) {
    write_predictions(recipe_.run.folder, state().step, *session_.objective,
                      {report.predictions, *session_.validation});
  }
  session_.log->validation(state().step, report, seconds_since(start));
  interval_start_ += Clock::now() - start;  // not counted as time of training
}

void Trainer::save() {
  check_finite();
  session_.save(score_);
  session_.log->saved(state().step);
}

/// A run that fails is left as it stands, for the process ends: taking it down may wait for other ranks
/// (communicators), or for a device that waits for them (pinned memory), before anybody has read why.
Ending run_or_leave(std::unique_ptr<Trainer> trainer) {
  try {
    return trainer->run();
  } catch (...) {
    trainer.release()->give_up();
    throw;
  }
}

}  // namespace

/// Where a stage of `adapt` ends, other parameters are trained: everything is made anew around the checkpoint
/// written there, as if the run had been interrupted.
Ending train(const Recipe& recipe, World& world, const TrainHooks& hooks) {
  Recipe now = recipe;
  for (;;) {
    const Ending ending = run_or_leave(std::make_unique<Trainer>(now, world, hooks));
    if (!ending.goes_on) return ending;
    now.run.resume = "auto";
  }
}

}  // namespace tessera
