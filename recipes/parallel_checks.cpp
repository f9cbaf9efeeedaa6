// Which divisions of a model there can be; those that only the number of ranks tells are in check_ranks().
#include "recipes/parallel_checks.h"

#include <fmt/format.h>

#include <algorithm>

namespace tessera {
namespace {

int64_t whole(const Recipe& recipe, const char* key) { return recipe.model.integer(key).value_or(0); }

void check_heads(const Recipe& recipe, Problems& problems) {
  const auto& sizes = recipe.parallel;
  const int64_t heads = recipe.model.integer("num_heads").value_or(0);
  if (heads == 0) return;
  if (heads % sizes.tensor != 0) {
    problems.add("parallel.tensor", fmt::format("{} does not divide the model's {} heads; valid: {}",
                                                sizes.tensor, heads, divisors(heads)));
    return;
  }
  const int64_t here = heads / sizes.tensor;
  if (sizes.context_method != ContextMethod::ulysses || here % sizes.context == 0) return;
  problems.add("parallel.context",
               fmt::format("{} x tensor {} = {} does not divide the model's {} heads, which ulysses divides; "
                           "valid: {}, or context_method ring",
                           sizes.context, sizes.tensor, sizes.context * sizes.tensor, heads, divisors(here)));
}

void check_attention_dropout(const Recipe& recipe, Problems& problems) {
  const double dropout = recipe.model.number("attention_dropout").value_or(0);
  if (recipe.parallel.context == 1 || dropout == 0) return;
  problems.add("model.attention_dropout",
               fmt::format("{} cannot be applied to sequences divided among {} ranks ({}); valid: 0, or "
                           "parallel.context 1",
                           dropout, recipe.parallel.context,
                           names_of(ContextMethod{})[static_cast<size_t>(recipe.parallel.context_method)]));
}

void check_widths(const Recipe& recipe, Problems& problems) {
  const int64_t tensor = recipe.parallel.tensor;
  const auto check = [&](const char* key, const char* what, int64_t width) {
    if (width == 0 || width >= tensor) return;
    problems.add("parallel.tensor",
                 fmt::format("{} ranks cannot divide the model's {} {} {}; valid: at most {}, or a larger "
                             "model.{}",
                             tensor, key, width, what, width, key));
  };
  check("feed_forward_size", "columns", whole(recipe, "feed_forward_size"));
  check("vocab_size", "tokens", whole(recipe, "vocab_size"));
}

void check_positions(const Recipe& recipe, Problems& problems) {
  const auto& sizes = recipe.parallel;
  const bool two = sizes.context > 1 && sizes.context_method == ContextMethod::ring &&
                   recipe.model.name() == "gpt";  // causal
  const int64_t chunks = sizes.context * sizes.tensor * (two ? 2 : 1), length = recipe.data.sequence_length;
  if (length >= chunks) return;
  const int64_t fewer = sizes.tensor <= length ? length / sizes.tensor / (two ? 2 : 1) : 0;
  problems.add("data.sequence_length",
               fmt::format("{} positions do not make {} chunks (context {} x tensor {}{}); valid: at least "
                           "{}, or {}",
                           length, chunks, sizes.context, sizes.tensor,
                           two ? ", two for each rank of a causal ring" : "", chunks,
                           fewer > 0 ? fmt::format("parallel.context {}", std::max<int64_t>(1, fewer))
                                     : fmt::format("parallel.tensor {}", std::min(sizes.tensor, length))));
}

/// True where the parts are possible, so that it makes sense to look at where they are cut.
bool check_parts(const ParallelSection& sizes, int64_t blocks, Problems& problems) {
  if (sizes.pipeline_chunks > 1 && sizes.pipeline_schedule == PipelineSchedule::one_f_one_b) {
    problems.add("parallel.pipeline_chunks",
                 fmt::format("{}, but 1f1b has one chunk per rank; valid: 1, or pipeline_schedule "
                             "interleaved or gpipe",
                             sizes.pipeline_chunks));
    return false;
  }
  const int64_t parts = sizes.pipeline * sizes.pipeline_chunks;
  if (parts <= blocks) return true;
  std::string valid = fmt::format("pipeline {}", std::min(sizes.pipeline, blocks));
  if (sizes.pipeline_chunks > 1) {
    valid = sizes.pipeline <= blocks ? fmt::format("pipeline_chunks {}, or pipeline {}",
                                                   std::max<int64_t>(1, blocks / sizes.pipeline),
                                                   std::max<int64_t>(1, blocks / sizes.pipeline_chunks))
                                     : fmt::format("pipeline {} and pipeline_chunks 1", blocks);
  }
  problems.add("parallel.pipeline",
               fmt::format("{} x pipeline_chunks {} = {} parts, but the model has {} blocks; valid: {}",
                           sizes.pipeline, sizes.pipeline_chunks, parts, blocks, valid));
  return false;
}

/// Parts of (nearly) as many blocks each, as the user would write them.
std::string even_split(int64_t blocks, int64_t parts) {
  std::string text;
  for (int64_t part = 1; part < parts; ++part)
    text += fmt::format("{}{}", text.empty() ? "" : ", ", blocks * part / parts);
  return "[" + text + "]";
}

void check_split(const ParallelSection& sizes, int64_t blocks, Problems& problems) {
  const auto& split = sizes.pipeline_split;
  const int64_t parts = sizes.pipeline * sizes.pipeline_chunks;
  if (split.empty()) return;
  const auto refuse = [&](const std::string& what) {
    problems.add("parallel.pipeline_split", fmt::format("{}; valid: [] (parts of equal cost), or such as {}",
                                                        what, even_split(blocks, parts)));
  };
  if (static_cast<int64_t>(split.size()) != parts - 1) {
    return refuse(
        fmt::format("{} first blocks, but {} parts have {} after the first", split.size(), parts, parts - 1));
  }
  for (size_t i = 0; i < split.size(); ++i) {
    if (split[i] < 1) return refuse(fmt::format("block {} leaves the first part without any", split[i]));
    if (split[i] >= blocks)
      return refuse(fmt::format("block {} of {} (0 to {})", split[i], blocks, blocks - 1));
    if (i > 0 && split[i] <= split[i - 1])
      return refuse(fmt::format("{} after {} is not ascending", split[i], split[i - 1]));
  }
}

void check_stages(const Recipe& recipe, Problems& problems) {
  const int64_t blocks = whole(recipe, "num_layers");
  if (recipe.parallel.pipeline == 1 || blocks == 0) return;
  if (check_parts(recipe.parallel, blocks, problems)) check_split(recipe.parallel, blocks, problems);
}

/// Sizes that do divide the ranks, one axis changed at a time, the nearest below.
std::string other_sizes(const Recipe& recipe, int64_t ranks) {
  const auto& sizes = recipe.parallel;
  const int64_t product = sizes.shard * ranks_per_sample(sizes), heads = whole(recipe, "num_heads");
  const std::pair<const char*, int64_t> axes[] = {{"shard", sizes.shard},
                                                  {"context", sizes.context},
                                                  {"tensor", sizes.tensor},
                                                  {"pipeline", sizes.pipeline}};
  std::string text;
  for (const auto& axis : axes) {
    const int64_t others = product / axis.second;
    if (axis.second == 1 || ranks % others != 0) continue;
    int64_t size = divisor_up_to(ranks / others, axis.second);
    const bool heads_count = axis.first == std::string("tensor") && heads > 0;
    while (heads_count && (heads % size != 0 || ranks / others % size != 0)) --size;
    text += fmt::format(", or parallel.{} {}", axis.first, size);
  }
  return text.empty() ? ", or other sizes" : text;
}

/// Interleaving takes micro-batches in groups of as many as there are stages.
void check_interleaved_batches(const Recipe& recipe, const BatchArithmetic& batch) {
  const auto& sizes = recipe.parallel;
  const int64_t stages = sizes.pipeline;
  if (stages == 1 || sizes.pipeline_schedule != PipelineSchedule::interleaved) return;
  if (batch.accumulation % stages == 0) return;
  const int64_t at_once = batch.replicas * batch.micro_batch * stages;
  const int64_t below = batch.global_batch / at_once * at_once;
  std::string valid =
      fmt::format("train.global_batch {}{}", below ? fmt::format("{} or ", below) : "", below + at_once);
  const int64_t samples = batch.global_batch / batch.replicas;
  if (samples % stages == 0)
    valid += fmt::format(", or train.micro_batch {}", divisor_up_to(samples / stages, batch.micro_batch));
  throw recipe.error(
      "parallel.pipeline_schedule",
      fmt::format(
          "interleaved: {} micro-batches ({} / {} replicas / micro_batch {}) are not a multiple of {} "
          "stages; valid: {}, or {}",
          batch.accumulation, batch.global_batch, batch.replicas, batch.micro_batch, stages, valid,
          sizes.pipeline_chunks == 1 ? "1f1b" : "gpipe"));
}

}  // namespace

std::string divisors(int64_t number) {
  std::string text;
  for (int64_t i = 1; i <= number; ++i) {
    if (number % i == 0) text += (text.empty() ? "" : ", ") + std::to_string(i);
  }
  return text;
}

int64_t divisor_up_to(int64_t number, int64_t limit) {
  int64_t divisor = std::clamp<int64_t>(limit, 1, number);
  while (number % divisor != 0) --divisor;
  return divisor;
}

void check_offload(const ParallelSection& sizes, Problems& problems) {
  if (sizes.offload != Offload::parameters || (sizes.shard > 1 && sizes.zero == 3)) return;
  problems.add("parallel.offload",
               fmt::format("parameters, but with shard {} and zero {} they are whole on every rank; valid: "
                           "optimizer, or zero 3 with a shard of 2 or more",
                           sizes.shard, sizes.zero));
}

void check_parallel(const Recipe& recipe, Problems& problems) {
  check_offload(recipe.parallel, problems);
  check_heads(recipe, problems);
  check_attention_dropout(recipe, problems);
  check_widths(recipe, problems);
  check_positions(recipe, problems);
  check_stages(recipe, problems);
}

void check_vocabulary(const Recipe& recipe, int64_t vocab_size) {
  if (vocab_size >= recipe.parallel.tensor) return;
  throw recipe.error("parallel.tensor",
                     fmt::format("{} ranks cannot divide a vocabulary of {} tokens; valid: at most {}",
                                 recipe.parallel.tensor, vocab_size, vocab_size));
}

void check_ranks(const Recipe& recipe, int ranks) {
  const auto& sizes = recipe.parallel;
  const int64_t product = sizes.shard * ranks_per_sample(sizes);
  if (ranks % product != 0) {
    const int64_t below = ranks / product * product;
    throw recipe.error("parallel",
                       fmt::format("shard {} x context {} x tensor {} x pipeline {} = {}, which does not "
                                   "divide {} ranks; valid: {}{} ranks{}",
                                   sizes.shard, sizes.context, sizes.tensor, sizes.pipeline, product, ranks,
                                   below > 0 ? fmt::format("{} or ", below) : "", below + product,
                                   other_sizes(recipe, ranks)));
  }
  check_interleaved_batches(recipe, batch_arithmetic(recipe, ranks));
}

}  // namespace tessera
