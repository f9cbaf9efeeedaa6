#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "recipes/fields.h"
#include "recipes/parallel_kinds.h"

/// The sections that every recipe has, whatever its model.
namespace tessera {

struct RunSection {
  std::string folder;
  uint64_t seed = 1;
  std::string resume = "auto";
};
template <class V>
void fields(RunSection& t, V& v) {
  v("folder", t.folder,
    "where checkpoints, metrics and the resolved recipe go; relative to the working folder", required,
    changeable);
  v("seed", t.seed, "seed of initial values, dropout, masking and the order of the data", new_phase);
  v("resume", t.resume,
    "`auto`: from the newest whole checkpoint in the folder, if there is one; `never`: refuse a folder that "
    "has "
    "some; or the path of a checkpoint or of another run's folder: start from that, and from this run's own "
    "checkpoints once it has some",
    changeable);
}
void check(const RunSection& t, Problems& problems);

/// One source of a mixture.
struct DataSource {
  std::string path;
  double weight = 1;
};
template <class V>
void fields(DataSource& t, V& v) {
  v("path", t.path,
    "HDF5 token file made by `tessera prepare`, NVIDIA's BERT HDF5, or a task's records; relative to the "
    "working folder",
    required);
  v("weight", t.weight, "share of the samples, relative to the other sources' weights", above(0));
}

/// A path, or a list of {path, weight}.
struct DataSources {
  std::vector<DataSource> sources;
};
template <>
struct Value<DataSources> {
  static bool read(const Section&, DataSources&, const Rules&, Problems&);
  static Section write(const DataSources&);
  static std::string valid(const Rules&) { return "path, or list of {path, weight}"; }
};

/// How documents fill sequences: joined end to end with a separator after each, or none crossing a document.
enum class Pack { join, documents };
inline std::vector<std::string> names_of(Pack) { return {"join", "documents"}; }

struct DataSection {
  DataSources train;
  std::optional<std::string> validation;
  int64_t sequence_length = 0;
  std::optional<std::string> tokenizer;
  Pack pack = Pack::join;
  bool shuffle = true;
  int64_t prefetch = 2;
  int64_t bucket = 0;
  double short_sequence_probability = 0.1;
  int64_t duplicate = 1;
};
template <class V>
void fields(DataSection& t, V& v) {
  v("train", t.train,
    "HDF5 token file made by `tessera prepare` (or NVIDIA's BERT HDF5), or several to mix by weight; for "
    "tasks: JSON lines, CSV or TSV",
    required, new_phase);
  v("validation", t.validation, "the same for validation; without it nothing is evaluated", changeable);
  v("sequence_length", t.sequence_length, "tokens per sample, special tokens included", required,
    range(2, 1 << 20), new_phase);
  v("tokenizer", t.tokenizer, "tokenizer.json or its folder; null: the one stored in the data file",
    changeable);
  v("pack", t.pack,
    "causal samples: `join` cuts them from all documents in a row with separators between, `documents` never "
    "crosses "
    "from one document into the next",
    new_phase);
  v("shuffle", t.shuffle, "samples in an order drawn anew each epoch; false: as in the file", new_phase);
  v("bucket", t.bucket,
    "samples of like length together, to spare padding: so many global batches in a row are sorted by "
    "length, "
    "cut anew and shuffled as batches; 0: off",
    range(0, 10000), new_phase);
  v("prefetch", t.prefetch, "steps whose batches are made ahead of time, in the background", changeable,
    range(0, 1000));
  v("short_sequence_probability", t.short_sequence_probability,
    "sentence pairs: share of samples with a shorter target length, drawn at random", range(0, 1), new_phase);
  v("duplicate", t.duplicate,
    "sentence pairs: passes over the documents, drawn differently, that make one epoch", range(1, 1000),
    new_phase);
}

enum class Precision { fp32, bf16, fp16 };
inline std::vector<std::string> names_of(Precision) { return {"fp32", "bf16", "fp16"}; }
enum class DeviceChoice { automatic, cpu, cuda };
inline std::vector<std::string> names_of(DeviceChoice) { return {"auto", "cpu", "cuda"}; }
enum class Recompute { none, blocks };
inline std::vector<std::string> names_of(Recompute) { return {"none", "blocks"}; }

struct TrainSection {
  std::optional<int64_t> steps;
  std::optional<double> epochs;
  int64_t stop_after = 0;
  DeviceChoice device = DeviceChoice::automatic;
  int64_t global_batch = 0;
  int64_t micro_batch = 0;
  Precision precision = Precision::fp32;
  double clip = 0;
  double ema = 0;
  Recompute recompute = Recompute::none;
  double loss_scale = 65536;
  bool deterministic = true;
};
template <class V>
void fields(TrainSection& t, V& v) {
  v("steps", t.steps, "length of the run in optimizer steps; this or `epochs`", changeable, at_least(1));
  v("epochs", t.epochs, "length of the run in passes over the training data; this or `steps`", changeable,
    above(0));
  v("stop_after", t.stop_after,
    "save and leave after this step, as if stopped by a signal; the schedule still spans the whole run; 0: "
    "go to the end",
    changeable, at_least(0));
  v("device", t.device, "`auto`: a GPU per rank where there are GPUs, else the CPU", changeable);
  v("global_batch", t.global_batch, "sequences per optimizer step, over all ranks", required, at_least(1),
    new_phase);
  v("micro_batch", t.micro_batch,
    "sequences that one rank computes at a time; the rest of the global batch is accumulated", required,
    changeable, at_least(1));
  v("precision", t.precision,
    "of weights and activations in the computation; masters and optimizer state are always fp32", changeable);
  v("clip", t.clip, "gradients are scaled down to this global norm; 0: off", changeable, at_least(0));
  v("ema", t.ema, "decay per step of an exponential moving average of the weights, kept beside them; 0: off",
    at_least(0), below(1));
  v("recompute", t.recompute,
    "`blocks`: forget activations inside each block and compute them again in backward", changeable);
  v("loss_scale", t.loss_scale, "fp16: the first factor of dynamic loss scaling", changeable, at_least(1));
  v("deterministic", t.deterministic,
    "GPUs: the same bits from the same run, also after a resume; `false`: faster attention, whose gradients "
    "add up in any order. A CPU always repeats itself",
    changeable);
}
void check(const TrainSection& t, Problems& problems);

enum class ReducePrecision { fp32, working };
inline std::vector<std::string> names_of(ReducePrecision) { return {"fp32", "working"}; }

struct ParallelSection {
  int64_t shard = 1, tensor = 1, pipeline = 1, context = 1;
  int64_t zero = 3;
  int64_t prefetch = 1;
  Offload offload = Offload::none;
  ContextMethod context_method = ContextMethod::ring;
  PipelineSchedule pipeline_schedule = PipelineSchedule::one_f_one_b;
  int64_t pipeline_chunks = 1;
  std::vector<int64_t> pipeline_split;
  double bucket_megabytes = 25;
  ReducePrecision reduce_precision = ReducePrecision::fp32;
};
template <class V>
void fields(ParallelSection& t, V& v) {
  v("shard", t.shard, "ranks over which parameters and optimizer state are sharded", changeable, at_least(1));
  v("tensor", t.tensor, "ranks over which each layer is split", changeable, at_least(1));
  v("pipeline", t.pipeline, "ranks over which the blocks are divided", changeable, at_least(1));
  v("context", t.context, "ranks over which each sequence is divided", changeable, at_least(1));
  v("zero", t.zero, "what the shard axis divides: 1 optimizer state, 2 also gradients, 3 also parameters",
    changeable, range(1, 3));
  v("prefetch", t.prefetch, "zero 3: blocks whose parameters are gathered ahead of their use", changeable,
    at_least(0));
  v("offload", t.offload,
    "to the host's memory: `optimizer` state and masters, stepped there, or also the shards of `parameters`",
    changeable);
  v("context_method", t.context_method,
    "`ring`: keys and values travel round the ranks; `ulysses`: each rank attends with some of the heads",
    changeable);
  v("pipeline_schedule", t.pipeline_schedule,
    "order of forwards and backwards; `1f1b` keeps few activations, `interleaved` idles less with several "
    "chunks",
    changeable);
  v("pipeline_chunks", t.pipeline_chunks, "parts of the model on each pipeline rank", changeable,
    at_least(1));
  v("pipeline_split", t.pipeline_split,
    "the first block of each part but the first; empty: parts of equal cost", changeable);
  v("bucket_megabytes", t.bucket_megabytes, "size of the messages in which gradients are reduced, in MiB",
    changeable, above(0));
  v("reduce_precision", t.reduce_precision,
    "type in which gradients are summed over ranks; `working`: train.precision", changeable);
}

/// Ranks that work on the same samples.
inline int64_t ranks_per_sample(const ParallelSection& t) { return t.context * t.tensor * t.pipeline; }

struct CheckpointSection {
  int64_t every = 1000;
  int64_t keep = 3;
  bool keep_best = true;
  bool background = true;
};
template <class V>
void fields(CheckpointSection& t, V& v) {
  v("every", t.every, "steps between two checkpoints; 0: only at the end", changeable, at_least(0));
  v("keep", t.keep, "how many of the newest stay; 0: all", changeable, at_least(0));
  v("keep_best", t.keep_best, "also keep the one that validated best (evaluate.metric)", changeable);
  v("background", t.background, "write in a thread while training goes on", changeable);
}

struct EvaluateSection {
  int64_t every = 1000;
  int64_t batches = 0;
  int64_t micro_batch = 0;
  std::string metric = "loss";
  int64_t patience = 0;
  bool predictions = false;
};
template <class V>
void fields(EvaluateSection& t, V& v) {
  v("every", t.every, "steps between two evaluations; 0: only at the end", changeable, at_least(0));
  v("batches", t.batches, "global batches of validation data per evaluation; 0: all", changeable,
    at_least(0));
  v("micro_batch", t.micro_batch, "sequences that one rank evaluates at a time; 0: as train.micro_batch",
    changeable, at_least(0));
  v("metric", t.metric,
    "what tells which checkpoint is best: `loss`, or one of the objective's metrics (`accuracy`, ...); a "
    "wrong "
    "name is told with the valid ones",
    changeable);
  v("patience", t.patience, "stop after so many evaluations in a row without a better metric; 0: never",
    changeable, at_least(0));
  v("predictions", t.predictions,
    "also write the last evaluation's predictions (predictions-STEP.jsonl, confusion-STEP.json)", changeable);
}

struct LogSection {
  int64_t every = 10;
  bool tensorboard = true;
  bool profile = false;
  bool samples = false;
};
template <class V>
void fields(LogSection& t, V& v) {
  v("every", t.every, "steps between two lines of metrics", changeable, at_least(1));
  v("tensorboard", t.tensorboard, "also write TensorBoard events", changeable);
  v("profile", t.profile, "also report where time and memory go", changeable);
  v("samples", t.samples, "also write which samples each rank consumed in each step (samples/rank-*.jsonl)",
    changeable);
}

}  // namespace tessera
