#include "trainer/model.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "parallel/embedding_rows.h"
#include "recipes/error.h"
#include "recipes/random.h"
#include "trainer/blocks/lora.h"
#include "trainer/initialise.h"

namespace tessera {

at::Tensor Model::forward(const Batch& batch, const DropoutState& dropout) const {
  return run({0, blocks_.size()}, {}, batch, dropout);
}

at::Tensor Model::run(const ModelRange& range, const at::Tensor& input, const Batch& batch,
                      const DropoutState& dropout) const {
  if (strategy_) strategy_->enter(0, {});
  const Context shared = context(batch, dropout);
  at::Tensor hidden = range.embeds ? embed(batch, shared) : input;
  for (size_t i = range.first; i < range.end; ++i) {
    if (strategy_) hidden = strategy_->enter(i + 1, hidden);
    hidden = blocks_[i]->forward(hidden, shared);
    if (strategy_) hidden = strategy_->leave(i + 1, hidden);
  }
  return range.finishes ? finish(hidden) : hidden;
}

at::TensorOptions Model::data_options() const {
  const auto all = parameters();
  const auto held = std::find_if(all.begin(), all.end(), [](const at::Tensor& parameter) {
    return parameter.storage().nbytes() > 0;  // the others are on other ranks
  });
  return held->options().requires_grad(false);
}

Context Model::context(const Batch& batch, const DropoutState& dropout) const {
  Context context;
  context.batch = batch.batch();
  context.sequence = batch.sequence();
  context.first_position = batch.first_position;
  context.positions = context.positions_inside = batch.positions;
  if (split_) {
    context.split = &*split_;
    context.sequence /= split_->size();
    const int64_t first = split_->first_of(batch.sequence());
    context.positions = batch.positions.defined()
                            ? batch.positions.slice(0, first, first + context.sequence)
                            : at::arange(first, first + context.sequence, batch.tokens.options());
  }
  context.samples = batch.samples;
  context.dropout = dropout;
  if (across_) {
    context.across = &*across_;
    context.key_mask = batch.attention_mask;
  } else if (batch.attention_mask.defined()) {
    context.attention_bias = at::zeros({batch.batch(), 1, 1, batch.sequence()}, data_options())
                                 .masked_fill_(batch.attention_mask.logical_not().unsqueeze(1).unsqueeze(1),
                                               -std::numeric_limits<double>::infinity());
    context.packing = batch.packing;
  }
  return context;
}

at::Tensor Model::pair_logits(const at::Tensor&, const Batch&, const DropoutState&) const {
  throw Error("this model has no sentence-pair head (next_sentence)");
}

at::Tensor Model::task_logits(const at::Tensor&, const Batch&, const DropoutState&) const {
  throw Error("this model has no head for such a task");
}

KeyValueCache Model::make_cache(int64_t) const {
  throw Error("this model does not generate text; valid: gpt");
}

at::Tensor Model::next_logits(const at::Tensor&, KeyValueCache&) const {
  throw Error("this model does not generate text; valid: gpt");
}

void Model::set_recompute(bool recompute) {
  for (const auto& block : blocks_) block->set_recompute(recompute);
}

void Model::allocate() { tessera::allocate(place_parameters(*this, Mesh())); }

namespace {

/// A fresh low-rank part adds nothing (Hu et al., 2021, section 4.1; the table of an embedding begins with 0
/// as in PEFT). A magnitude is set once the weights are there.
Initial initial_of_lora(const Parameter& parameter) {
  const bool table = parameter.name.starts_with("embeddings.");
  if (parameter.name.ends_with(table ? ".lora.b" : ".lora.a")) {
    const auto inputs = static_cast<double>(parameter.placement.global_shape[1]);
    // Of the same deviation as a uniform one within 1 / sqrt(inputs).
    return {table ? 1 : 1 / std::sqrt(3 * inputs), 0};
  }
  return {0, 0};
}

}  // namespace

void Model::initialise(uint64_t seed, const std::vector<Parameter>& parameters) const {
  const at::NoGradGuard no_grad;
  for (const Parameter& parameter : parameters) {
    const Initial start = is_low_rank(parameter.name) ? initial_of_lora(parameter) : initial(parameter.name);
    at::Tensor values = parameter.master;
    if (start.deviation == 0) {
      values.fill_(start.value);
      continue;
    }
    fill_normal(values, mix(seed, hash_name(parameter.name)), parameter.placement.global_shape,
                parameter.placement.offset, start.deviation);
  }
  refresh_working(parameters);
}

void Model::initialise(uint64_t seed) {
  allocate();
  initialise(seed, collect_parameters(*this));
}

at::Tensor Model::lookup(const Embedding& table, const Batch& batch) const {
  const auto rows_of = [&](const at::Tensor& rows) {
    return split_ ? split_->lookup(rows, split_->first_of(vocab_size()), batch.tokens)
                  : embedding_rows(rows, batch.tokens.reshape({-1}));
  };
  at::Tensor own = rows_of(table.weight);
  if (!table.lora) return own;
  return own + ops::linear(rows_of(table.lora->a), table.lora->b) * table.lora->config().scale;
}

at::Tensor Model::label_rows(const at::Tensor& hidden, const Batch& batch) const {
  if (!batch.label_positions.defined()) return split_ ? split_->gather(hidden, batch.batch()) : hidden;
  return split_ ? split_->pick(hidden, batch.label_positions, batch.batch())
                : hidden.index_select(0, batch.label_positions);
}

at::Tensor Model::first_rows(const at::Tensor& hidden, const Batch& batch) const {
  if (!split_) return hidden.view({batch.batch(), -1, hidden.size(1)}).select(1, 0).contiguous();
  const at::Tensor first = at::arange(batch.batch(), batch.tokens.options()) * batch.sequence();
  return split_->pick(hidden, first, batch.batch());
}

// Numbered by its sample and its place there, so that each row drops elements of its own.
Context Model::label_context(const Batch& batch, const DropoutState& dropout) const {
  Context context;
  context.batch = batch.labels.size(0);
  context.sequence = 1;
  context.dropout = dropout;
  if (!dropout.enabled) return context;
  const at::Tensor index = batch.label_positions.defined()
                               ? batch.label_positions
                               : at::arange(batch.tokens.numel(), batch.tokens.options());
  const at::Tensor column = index.remainder(batch.sequence());
  const at::Tensor place = batch.positions.defined() ? batch.positions.index_select(0, column) : column;
  const at::Tensor sample = batch.samples.index_select(0, index.floor_divide(batch.sequence()));
  context.samples = sample * (int64_t{1} << 20) + place;
  return context;
}

Context Model::first_context(const Batch& batch, const DropoutState& dropout) const {
  Context context;
  context.batch = batch.batch();
  context.sequence = 1;
  context.dropout = dropout;
  context.samples = batch.samples;
  return context;
}

ops::TokenLoss Model::cross_entropy(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& bias,
                                    const at::Tensor& labels) const {
  if (!split_) return ops::linear_cross_entropy(rows, weight, bias, labels);
  const int64_t first = split_->first_of(vocab_size());
  return ops::split_cross_entropy({&*split_, first}, rows, weight, bias, labels);
}

void Model::add_blocks(int64_t num_layers, TransformerBlockConfig config) {
  const auto layers = register_module("layers", std::make_shared<torch::nn::ModuleListImpl>());
  for (int64_t i = 0; i < num_layers; ++i) {
    config.attention.layer = i;
    blocks_.push_back(std::make_shared<TransformerBlock>("layers." + std::to_string(i), config));
    layers->push_back(blocks_.back());
  }
}

}  // namespace tessera
