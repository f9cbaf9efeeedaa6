#include "trainer/models/gpt.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include <cmath>

namespace tessera {
namespace {

class GptEmbeddings : public torch::nn::Module {
 public:
  explicit GptEmbeddings(const GptConfig& config) : dropout_("embeddings", config.dropout) {
    word = register_module("word", std::make_shared<Embedding>(config.vocab_size, config.hidden_size));
    position =
        register_module("position", std::make_shared<Embedding>(config.max_positions, config.hidden_size));
  }

  /// `own`: own rows of the tokens' embeddings.
  at::Tensor forward(const at::Tensor& own, const Batch& batch, const Context& context) const {
    const at::Tensor words = own.view({context.batch, context.sequence, -1});
    at::Tensor places;
    if (context.cache && context.cache->padding.defined()) {
      const at::Tensor places_index = at::arange(batch.sequence(), batch.tokens.options()) +
                                      batch.first_position - context.cache->padding.unsqueeze(1);
      places = position->forward(places_index.clamp_min(0)).view(words.sizes());
    } else {
      places = context.position_rows(position->weight);
    }
    return dropout_.forward((words + places).view(own.sizes()), context);
  }

  std::shared_ptr<Embedding> word, position;

 private:
  Dropout dropout_;
};

class Gpt : public Model {
 public:
  Gpt(const GptConfig& config, const Heads& heads)
      : config_(config), heads_(heads), task_dropout_("classifier", config.dropout) {
    embeddings_ = register_module("embeddings", std::make_shared<GptEmbeddings>(config));
    TransformerBlockConfig block;
    block.attention = {config.hidden_size, config.num_heads, config.attention_dropout, /*causal=*/true, 0};
    block.feed_forward_size =
        config.feed_forward_size > 0 ? config.feed_forward_size : 4 * config.hidden_size;
    block.dropout = config.dropout;
    block.epsilon = config.layer_norm_epsilon;
    block.activation = config.activation;
    block.norm_first = config.version == 2;
    add_blocks(config.num_layers, block);
    if (config.version == 2) {
      norm_ = register_module("norm", std::make_shared<Norm>(config.hidden_size, config.layer_norm_epsilon));
    }
    if (heads.task == TaskHead::none) return;
    const bool with_bias = heads.task != TaskHead::sequence;  // as transformers has it
    classifier_ =
        register_module("classifier", std::make_shared<Linear>(config.hidden_size, heads.outputs, with_bias));
  }

  at::Tensor embed(const Batch& batch, const Context& shared) const override {
    return embeddings_->forward(lookup(*embeddings_->word, batch), batch, shared);
  }
  at::Tensor finish(const at::Tensor& hidden) const override {
    return norm_ ? norm_->forward(hidden) : hidden;
  }

  ops::TokenLoss token_loss(const at::Tensor& hidden, const Batch& batch,
                            const DropoutState&) const override {
    return cross_entropy(label_rows(hidden, batch), embeddings_->word->weight, {}, batch.labels);
  }

  at::Tensor token_logits(const at::Tensor& rows) const override {
    return ops::linear(rows, embeddings_->word->weight);
  }

  at::Tensor task_logits(const at::Tensor& hidden, const Batch& batch,
                         const DropoutState& dropout) const override {
    if (!classifier_) return Model::task_logits(hidden, batch, dropout);
    const Context each = label_context(batch, dropout);
    at::Tensor rows = label_rows(hidden, batch);
    if (heads_.task == TaskHead::tokens) rows = task_dropout_.forward(rows, each);
    return once(classifier_->forward(rows, each));
  }

  KeyValueCache make_cache(int64_t batch) const override;
  at::Tensor next_logits(const at::Tensor& tokens, KeyValueCache& cache) const override;

  NameMap name_map() const override;
  Plan plan() const override {
    return {{"layers.*.attention.query", Split::columns},
            {"layers.*.attention.key", Split::columns},
            {"layers.*.attention.value", Split::columns},
            {"layers.*.attention.output", Split::rows},
            {"layers.*.feed_forward.expand", Split::columns},
            {"layers.*.feed_forward.contract", Split::rows},
            {"embeddings.word", Split::vocabulary}};
  }
  int64_t vocab_size() const override { return config_.vocab_size; }
  int64_t max_positions() const override { return config_.max_positions; }
  bool causal() const override { return true; }

 protected:
  Initial initial(const std::string& name) const override {
    if (name.ends_with("norm.weight")) return {0, 1};
    if (name.ends_with("bias")) return {0, 0};
    const bool into_residual = name.ends_with("attention.output.weight") || name.ends_with("contract.weight");
    const double depth = 2.0 * static_cast<double>(config_.num_layers);
    if (config_.version == 2 && into_residual) return {config_.initializer_range / std::sqrt(depth), 0};
    return {config_.initializer_range, 0};
  }

 private:
  GptConfig config_;
  Heads heads_;
  Dropout task_dropout_;
  std::shared_ptr<GptEmbeddings> embeddings_;
  std::shared_ptr<Norm> norm_;
  std::shared_ptr<Linear> classifier_;
};

KeyValueCache Gpt::make_cache(int64_t batch) const {
  KeyValueCache cache;
  const auto options = embeddings_->word->weight.options().requires_grad(false);
  const int64_t head_size = config_.hidden_size / config_.num_heads;
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    cache.keys.push_back(at::empty({batch, config_.num_heads, config_.max_positions, head_size}, options));
    cache.values.push_back(at::empty_like(cache.keys.back()));
  }
  return cache;
}

at::Tensor Gpt::next_logits(const at::Tensor& tokens, KeyValueCache& cache) const {
  at::NoGradGuard no_grad;
  Batch batch;
  batch.tokens = tokens;
  batch.first_position = cache.length;
  Context shared = context(batch, {});
  shared.cache = &cache;
  const int64_t keys = cache.length + tokens.size(1);
  if (cache.padding.defined()) {
    // Not -infinity: a padding query sees nothing but padding, and must not become NaN.
    const at::Tensor padding = at::arange(keys, tokens.options()).unsqueeze(0) < cache.padding.unsqueeze(1);
    shared.attention_bias = at::zeros({tokens.size(0), 1, 1, keys}, cache.keys.front().options())
                                .masked_fill_(padding.unsqueeze(1).unsqueeze(1), -1e30);
  }
  at::Tensor hidden = embed(batch, shared);
  for (const auto& block : blocks()) hidden = block->forward(hidden, shared);
  cache.length = keys;
  const at::Tensor last =
      hidden.view({tokens.size(0), tokens.size(1), -1}).select(1, tokens.size(1) - 1).contiguous();
  return token_logits(finish(last));
}

NameMap Gpt::name_map() const {
  const bool second = config_.version == 2;
  NameMap map{{second ? "transformer.wte.weight" : "transformer.tokens_embed.weight",
               {"embeddings.word.weight"},
               false},
              {second ? "transformer.wpe.weight" : "transformer.positions_embed.weight",
               {"embeddings.position.weight"},
               false}};
  const auto add = [&map](const std::string& theirs, const std::vector<std::string>& ours, bool conv1d) {
    for (const char* kind : {".weight", ".bias"}) {
      HuggingFaceTensor tensor{theirs + kind, {}, conv1d && kind[1] == 'w'};
      for (const std::string& each : ours) tensor.names.push_back(each + kind);
      map.push_back(tensor);
    }
  };
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const std::string theirs = "transformer.h." + std::to_string(i) + ".";
    const std::string ours = "layers." + std::to_string(i) + ".";
    add(theirs + "ln_1", {ours + "attention_norm"}, false);
    add(theirs + "attn.c_attn", {ours + "attention.query", ours + "attention.key", ours + "attention.value"},
        true);
    add(theirs + "attn.c_proj", {ours + "attention.output"}, true);
    add(theirs + "ln_2", {ours + "feed_forward_norm"}, false);
    add(theirs + "mlp.c_fc", {ours + "feed_forward.expand"}, true);
    add(theirs + "mlp.c_proj", {ours + "feed_forward.contract"}, true);
  }
  if (second) add("transformer.ln_f", {"norm"}, false);
  if (heads_.task == TaskHead::sequence) {
    map.push_back({"score.weight", {"classifier.weight"}, false});
  } else if (classifier_) {
    add(heads_.task == TaskHead::span ? "qa_outputs" : "classifier", {"classifier"}, false);
  }
  return map;
}

}  // namespace

void check(const GptConfig& t, Problems& problems) {
  if (t.hidden_size % t.num_heads != 0) {
    problems.add("num_heads", fmt::format("{} does not divide hidden_size {}", t.num_heads, t.hidden_size));
  }
}

ModelPtr make_gpt(const GptConfig& config, const Heads& heads) {
  return std::make_shared<Gpt>(config, heads);
}

}  // namespace tessera
