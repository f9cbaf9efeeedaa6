#pragma once
#include <torch/nn/module.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/strategy.h"
#include "trainer/batch.h"
#include "trainer/blocks/transformer_block.h"
#include "trainer/parameters.h"

namespace tessera {

/// One tensor of the Hugging Face layout and the parameters of ours that it holds: these joined along dim 0,
/// then transposed where `transposed` (GPT's Conv1D stores [in, out]).
struct HuggingFaceTensor {
  std::string key;
  std::vector<std::string> names;
  bool transposed = false;
};
using NameMap = std::vector<HuggingFaceTensor>;

/// How tensor parallelism divides a layer: `columns` divides its outputs, `rows` its inputs, `vocabulary` the
/// rows of a table of tokens. The pattern matches full module names, "*" one component. Whatever is not named
/// stays whole.
enum class Split { columns, rows, vocabulary };
struct SplitRule {
  std::string pattern;
  Split split;
};
using Plan = std::vector<SplitRule>;

/// How a parameter starts: normal(0, deviation), or every element `value` where deviation is 0.
struct Initial {
  double deviation = 0;
  double value = 0;
};

/// Of the key `from` that every family has.
constexpr const char* start_docs =
    "folder of a model to start from: a run's, a checkpoint's, or one that Hugging Face's save_pretrained "
    "left; "
    "the other keys here are then its own, unless given";

/// What a task reads off a model: a value per output of each sample, or of each token.
enum class TaskHead { none, sequence, tokens, span };

/// The heads that an objective needs.
struct Heads {
  bool vocabulary = true;      ///< predicts tokens
  bool next_sentence = false;  ///< predicts whether the second sentence follows
  TaskHead task = TaskHead::none;
  int64_t outputs = 0;  ///< of the task's head
};

/// A run of a model's blocks, and whether the embedding comes before it and the heads after.
struct ModelRange {
  size_t first = 0, end = 0;
  bool embeds = true, finishes = true;
};

/// A language model in three parts: embed() makes hidden states of tokens, blocks() transform them, finish()
/// ends them; heads then predict. Hidden states are [batch * sequence, hidden] in the type of the parameters.
/// Knows nothing of ranks.
class Model : public torch::nn::Module {
 public:
  /// All three parts: the hidden states that the heads read.
  at::Tensor forward(const Batch& batch, const DropoutState& dropout = {}) const;
  /// A part of that: hidden states from the part before (undefined where this one embeds) to those for the
  /// next.
  at::Tensor run(const ModelRange& range, const at::Tensor& input, const Batch& batch,
                 const DropoutState& dropout) const;

  virtual Context context(const Batch& batch, const DropoutState& dropout) const;
  virtual at::Tensor embed(const Batch& batch, const Context& context) const = 0;
  const std::vector<std::shared_ptr<TransformerBlock>>& blocks() const { return blocks_; }
  virtual at::Tensor finish(const at::Tensor& hidden) const { return hidden; }

  /// Cross-entropy of the token head against the batch's labels.
  virtual ops::TokenLoss token_loss(const at::Tensor& hidden, const Batch& batch,
                                    const DropoutState& dropout = {}) const = 0;
  /// Logits of the token head: rows [n, hidden] -> [n, vocab].
  virtual at::Tensor token_logits(const at::Tensor& rows) const = 0;
  /// Logits of the sentence-pair head from the first position of each sample: [batch, 2]. Error where there
  /// is none.
  virtual at::Tensor pair_logits(const at::Tensor& hidden, const Batch& batch,
                                 const DropoutState& dropout = {}) const;
  /// Outputs of the task's head at the batch's label positions: [n, outputs]. Error where there is none.
  virtual at::Tensor task_logits(const at::Tensor& hidden, const Batch& batch,
                                 const DropoutState& dropout) const;

  /// Room for generating up to max_positions tokens in a batch. Error for models that do not generate.
  virtual KeyValueCache make_cache(int64_t batch) const;
  /// Appends tokens [batch, n] int64 to the cache and predicts what follows: logits [batch, vocab] of the
  /// last position.
  virtual at::Tensor next_logits(const at::Tensor& tokens, KeyValueCache& cache) const;

  virtual NameMap name_map() const = 0;
  virtual Plan plan() const = 0;
  virtual int64_t vocab_size() const = 0;
  virtual int64_t max_positions() const = 0;
  /// Whether a position sees only those before it.
  virtual bool causal() const = 0;

  /// Divides layers among ranks from now on, as place_parameters() has divided the parameters.
  void divide_layers(const TensorSplit& split) { split_ = split; }
  /// And sequences, as batches are divided.
  void divide_sequences(const ContextSplit& across) { across_ = across; }
  /// Acts around embedding and blocks from now on; not owned, null = nobody.
  void set_strategy(Strategy* strategy) { strategy_ = strategy; }
  /// Keep only each block's input for backward and compute its inside again: less memory, a third more time.
  void set_recompute(bool recompute);
  /// Memory for all parameters, whole, on the CPU; values undefined.
  void allocate();
  /// Sets parameters, or parts of them: a pure function of the seed and of each one's name, global shape and
  /// element number.
  void initialise(uint64_t seed, const std::vector<Parameter>& parameters) const;
  void initialise(uint64_t seed);  ///< allocates and sets all

 protected:
  virtual Initial initial(const std::string& name) const = 0;
  /// Own rows of the embeddings of the batch's tokens, with their low-rank part.
  at::Tensor lookup(const Embedding& table, const Batch& batch) const;
  /// Rows of hidden at the batch's label positions, on every rank that divides layers.
  at::Tensor label_rows(const at::Tensor& hidden, const Batch& batch) const;
  /// The first row of each sample, as label_rows().
  at::Tensor first_rows(const at::Tensor& hidden, const Batch& batch) const;
  /// What such ranks compute alike, for a loss that counts it once.
  at::Tensor once(const at::Tensor& x) const { return split_ ? split_->once(x) : x; }
  /// To heads each of label_rows(), or first_rows(), is a sequence of its own.
  Context label_context(const Batch& batch, const DropoutState& dropout) const;
  Context first_context(const Batch& batch, const DropoutState& dropout) const;
  ops::TokenLoss cross_entropy(const at::Tensor& rows, const at::Tensor& weight, const at::Tensor& bias,
                               const at::Tensor& labels) const;
  void add_blocks(int64_t num_layers, TransformerBlockConfig config);

 private:
  at::TensorOptions data_options() const;  // of hidden states

  std::vector<std::shared_ptr<TransformerBlock>> blocks_;
  Strategy* strategy_ = nullptr;
  std::optional<TensorSplit> split_;
  std::optional<ContextSplit> across_;
};
using ModelPtr = std::shared_ptr<Model>;

/// Where a model's parameters are, and its inputs must be.
inline at::Device device_of(const Model& model) { return model.parameters().front().device(); }

}  // namespace tessera
