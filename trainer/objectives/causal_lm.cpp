#include <torch/torch.h>

#include "trainer/objectives/objectives.h"
#include "trainer/objectives/padding.h"

namespace tessera {
namespace {

class CausalLm : public Objective {
 public:
  explicit CausalLm(const ObjectiveSetting& setting) : setting_(setting) {}
  const std::vector<std::string>& terms() const override { return terms_; }
  ExampleKind example_kind() const override { return ExampleKind::causal; }

  Batch collate(const std::vector<Example>& examples) const override {
    std::vector<Row> rows;
    for (const Example& example : examples) rows.push_back({example.index, &example.tokens, &no_segments_});
    Batch batch = pad_rows(rows, setting_.sequence_length, std::max(0, setting_.tokenizer->special().pad));
    // Padding comes last, where no real position looks.
    batch.attention_mask = at::Tensor();
    std::vector<int64_t> positions, labels;
    for (size_t i = 0; i < examples.size(); ++i) {
      const auto& tokens = examples[i].tokens;
      for (size_t at = 0; at + 1 < tokens.size() && at < static_cast<size_t>(setting_.sequence_length);
           ++at) {
        positions.push_back(static_cast<int64_t>(i) * batch.sequence() + static_cast<int64_t>(at));
        labels.push_back(tokens[at + 1]);
      }
    }
    if (static_cast<int64_t>(labels.size()) < batch.tokens.numel()) {
      set_labels(batch, std::move(positions), std::move(labels));
    } else {  // every position predicts: no rows need be gathered
      batch.labels = index_tensor(labels);
      batch.counts = {static_cast<int64_t>(labels.size())};
    }
    return batch;
  }

  LossTerms loss(const Model& model, const at::Tensor& hidden, const Batch& batch,
                 const DropoutState&) const override {
    const ops::TokenLoss tokens = model.token_loss(hidden, batch);
    return {tokens.sum.unsqueeze(0), tokens.correct.unsqueeze(0)};
  }

 private:
  ObjectiveSetting setting_;
  std::vector<std::string> terms_{"lm"};
  std::vector<int32_t> no_segments_;
};

}  // namespace

ObjectivePtr make_causal_lm(const ObjectiveSetting& setting) { return std::make_shared<CausalLm>(setting); }

}  // namespace tessera
