#include "trainer/models/bert.h"

#include <fmt/format.h>
#include <torch/torch.h>

#include "recipes/error.h"

namespace tessera {
namespace {

class BertEmbeddings : public torch::nn::Module {
 public:
  explicit BertEmbeddings(const BertConfig& config) : dropout_("embeddings", config.dropout) {
    word = register_module("word", std::make_shared<Embedding>(config.vocab_size, config.hidden_size));
    position_ =
        register_module("position", std::make_shared<Embedding>(config.max_positions, config.hidden_size));
    segment_ =
        register_module("segment", std::make_shared<Embedding>(config.type_vocab_size, config.hidden_size));
    norm_ = register_module("norm", std::make_shared<Norm>(config.hidden_size, config.layer_norm_epsilon));
  }

  /// `words`: own rows of the tokens' embeddings.
  at::Tensor forward(const at::Tensor& words, const Batch& batch, const Context& context) const {
    const at::Tensor positions = context.position_rows(position_->weight);
    at::Tensor places = positions;
    if (batch.segments.defined()) {
      const at::Tensor segments = segment_->forward(context.own_columns(batch.segments));
      places = segments.view({context.batch, context.sequence, -1}) + positions;
    } else {
      places = positions + segment_->weight.select(0, 0);
    }
    const at::Tensor sum = words.view({context.batch, context.sequence, -1}) + places;
    return dropout_.forward(norm_->forward(sum.view(words.sizes())), context);
  }

  std::shared_ptr<Embedding> word;

 private:
  Dropout dropout_;
  std::shared_ptr<Embedding> position_, segment_;
  std::shared_ptr<Norm> norm_;
};

// The head of masked language modelling: its last product is with the word embeddings.
class Prediction : public torch::nn::Module {
 public:
  explicit Prediction(const BertConfig& config) : kind_(config.activation) {
    dense_ = register_module("dense", std::make_shared<Linear>(config.hidden_size, config.hidden_size));
    norm_ = register_module("norm", std::make_shared<Norm>(config.hidden_size, config.layer_norm_epsilon));
    bias = register_parameter("bias", unallocated({config.vocab_size}));
  }
  at::Tensor forward(const at::Tensor& rows, const Context& context) const {
    const at::Tensor wide = project_into({dense_.get()}, rows, context, Biases::left_out);
    return norm_->forward(ops::activation(wide, dense_->bias, kind_));
  }
  at::Tensor bias;

 private:
  Activation kind_;
  std::shared_ptr<Linear> dense_;
  std::shared_ptr<Norm> norm_;
};

class Bert : public Model {
 public:
  Bert(const BertConfig& config, const Heads& heads)
      : config_(config), heads_(heads), task_dropout_("classifier", config.dropout) {
    embeddings_ = register_module("embeddings", std::make_shared<BertEmbeddings>(config));
    TransformerBlockConfig block;
    block.attention = {config.hidden_size, config.num_heads, config.attention_dropout, /*causal=*/false, 0};
    block.feed_forward_size = config.feed_forward_size;
    block.dropout = config.dropout;
    block.epsilon = config.layer_norm_epsilon;
    block.activation = config.activation;
    add_blocks(config.num_layers, block);
    const int64_t hidden = config.hidden_size;
    if (heads.vocabulary) prediction_ = register_module("prediction", std::make_shared<Prediction>(config));
    if (heads.next_sentence || heads.task == TaskHead::sequence) {
      pooler_ = register_module("pooler", std::make_shared<Linear>(hidden, hidden));
    }
    if (heads.next_sentence) {
      next_sentence_ = register_module("next_sentence", std::make_shared<Linear>(hidden, 2));
    }
    if (heads.task == TaskHead::none) return;
    classifier_ = register_module("classifier", std::make_shared<Linear>(hidden, heads.outputs));
  }

  at::Tensor embed(const Batch& batch, const Context& shared) const override {
    return embeddings_->forward(lookup(*embeddings_->word, batch), batch, shared);
  }

  ops::TokenLoss token_loss(const at::Tensor& hidden, const Batch& batch,
                            const DropoutState& dropout) const override {
    const at::Tensor rows = prediction_->forward(label_rows(hidden, batch), label_context(batch, dropout));
    return cross_entropy(rows, embeddings_->word->weight, prediction_->bias, batch.labels);
  }

  at::Tensor token_logits(const at::Tensor& rows) const override {
    return ops::linear(prediction_->forward(rows, {}), embeddings_->word->weight, prediction_->bias);
  }

  at::Tensor pair_logits(const at::Tensor& hidden, const Batch& batch,
                         const DropoutState& dropout) const override {
    if (!next_sentence_) return Model::pair_logits(hidden, batch, dropout);
    const Context rows = first_context(batch, dropout);
    return once(next_sentence_->forward(pooler_->forward(first_rows(hidden, batch), rows).tanh(), rows));
  }

  at::Tensor task_logits(const at::Tensor& hidden, const Batch& batch,
                         const DropoutState& dropout) const override {
    if (!classifier_) return Model::task_logits(hidden, batch, dropout);
    const Context each = label_context(batch, dropout);
    at::Tensor rows = label_rows(hidden, batch);
    if (pooler_) rows = pooler_->forward(rows, each).tanh();
    if (heads_.task != TaskHead::span) rows = task_dropout_.forward(rows, each);
    return once(classifier_->forward(rows, each));
  }

  NameMap name_map() const override;
  Plan plan() const override {
    return {{"layers.*.attention.query", Split::columns},     {"layers.*.attention.key", Split::columns},
            {"layers.*.attention.value", Split::columns},     {"layers.*.attention.output", Split::rows},
            {"layers.*.feed_forward.expand", Split::columns}, {"layers.*.feed_forward.contract", Split::rows},
            {"embeddings.word", Split::vocabulary},           {"prediction.bias", Split::vocabulary}};
  }
  int64_t vocab_size() const override { return config_.vocab_size; }
  int64_t max_positions() const override { return config_.max_positions; }
  bool causal() const override { return false; }

 protected:
  Initial initial(const std::string& name) const override {
    if (name.ends_with("norm.weight")) return {0, 1};
    if (name.ends_with("bias")) return {0, 0};
    return {config_.initializer_range, 0};
  }

 private:
  BertConfig config_;
  Heads heads_;
  Dropout task_dropout_;
  std::shared_ptr<BertEmbeddings> embeddings_;
  std::shared_ptr<Prediction> prediction_;
  std::shared_ptr<Linear> pooler_, next_sentence_, classifier_;
};

NameMap Bert::name_map() const {
  NameMap map{{"bert.embeddings.word_embeddings.weight", {"embeddings.word.weight"}, false},
              {"bert.embeddings.position_embeddings.weight", {"embeddings.position.weight"}, false},
              {"bert.embeddings.token_type_embeddings.weight", {"embeddings.segment.weight"}, false}};
  const auto add = [&map](const std::string& theirs, const std::string& ours) {
    for (const char* kind : {".weight", ".bias"}) map.push_back({theirs + kind, {ours + kind}, false});
  };
  add("bert.embeddings.LayerNorm", "embeddings.norm");
  for (int64_t i = 0; i < config_.num_layers; ++i) {
    const std::string theirs = "bert.encoder.layer." + std::to_string(i) + ".";
    const std::string ours = "layers." + std::to_string(i) + ".";
    for (const char* each : {"query", "key", "value"}) {
      add(theirs + "attention.self." + each, ours + "attention." + each);
    }
    add(theirs + "attention.output.dense", ours + "attention.output");
    add(theirs + "attention.output.LayerNorm", ours + "attention_norm");
    add(theirs + "intermediate.dense", ours + "feed_forward.expand");
    add(theirs + "output.dense", ours + "feed_forward.contract");
    add(theirs + "output.LayerNorm", ours + "feed_forward_norm");
  }
  if (prediction_) {
    add("cls.predictions.transform.dense", "prediction.dense");
    add("cls.predictions.transform.LayerNorm", "prediction.norm");
    map.push_back({"cls.predictions.bias", {"prediction.bias"}, false});
  }
  if (pooler_) add("bert.pooler.dense", "pooler");
  if (next_sentence_) add("cls.seq_relationship", "next_sentence");
  if (classifier_) add(heads_.task == TaskHead::span ? "qa_outputs" : "classifier", "classifier");
  return map;
}

}  // namespace

void check(const BertConfig& t, Problems& problems) {
  if (t.hidden_size % t.num_heads != 0) {
    problems.add("num_heads", fmt::format("{} does not divide hidden_size {}", t.num_heads, t.hidden_size));
  }
}

ModelPtr make_bert(const BertConfig& config, const Heads& heads) {
  return std::make_shared<Bert>(config, heads);
}

}  // namespace tessera
