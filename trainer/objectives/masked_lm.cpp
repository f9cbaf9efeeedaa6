#include <torch/torch.h>

#include "recipes/error.h"
#include "trainer/objectives/masking.h"
#include "trainer/objectives/objectives.h"
#include "trainer/objectives/padding.h"

namespace tessera {
namespace {

class MaskedLm : public Objective {
 public:
  MaskedLm(const MaskingConfig& config, bool next_sentence, const ObjectiveSetting& setting)
      : masking_(config, setting.tokenizer), next_sentence_(next_sentence), setting_(setting) {
    terms_ = {"mlm"};
    if (next_sentence) terms_.emplace_back("nsp");
  }
  const std::vector<std::string>& terms() const override { return terms_; }
  ExampleKind example_kind() const override {
    return next_sentence_ ? ExampleKind::pairs : ExampleKind::single;
  }
  Heads heads() const override { return {.next_sentence = next_sentence_}; }

  Batch collate(const std::vector<Example>& examples) const override;

  LossTerms loss(const Model& model, const at::Tensor& hidden, const Batch& batch,
                 const DropoutState& dropout) const override {
    const ops::TokenLoss tokens = model.token_loss(hidden, batch, dropout);
    if (!next_sentence_) return {tokens.sum.unsqueeze(0), tokens.correct.unsqueeze(0)};
    if (!batch.next_sentence.defined()) {  // this rank has no first positions
      const at::Tensor none = at::zeros_like(tokens.correct);
      return {at::stack({tokens.sum, none}), at::stack({tokens.correct, none})};
    }
    const at::Tensor logits = model.pair_logits(hidden, batch, dropout);
    const at::Tensor sum =
        at::cross_entropy_loss(logits.to(at::promote_types(logits.scalar_type(), at::kFloat)),
                               batch.next_sentence, {}, at::Reduction::Sum);
    const at::Tensor correct = logits.detach().argmax(1).eq(batch.next_sentence).sum().to(at::kFloat);
    return {at::stack({tokens.sum, sum}), at::stack({tokens.correct, correct})};
  }

 private:
  Masked masked(const Example& example) const;

  Masking masking_;
  bool next_sentence_;
  ObjectiveSetting setting_;
  std::vector<std::string> terms_;
};

// Examples that come masked (NVIDIA's files) are used as they are, cut to the sequence length.
Masked MaskedLm::masked(const Example& example) const {
  const auto limit = static_cast<size_t>(setting_.sequence_length);
  std::vector<int32_t> tokens = example.tokens;
  if (tokens.size() > limit) tokens.resize(limit);
  if (example.masked_positions.empty()) return masking_.mask(tokens, setting_.seed, example.index);
  Masked result{std::move(tokens), {}, {}};
  for (size_t i = 0; i < example.masked_positions.size(); ++i) {
    if (static_cast<size_t>(example.masked_positions[i]) >= result.tokens.size()) continue;
    result.positions.push_back(example.masked_positions[i]);
    result.labels.push_back(example.masked_ids[i]);
  }
  return result;
}

Batch MaskedLm::collate(const std::vector<Example>& examples) const {
  std::vector<Masked> all;
  std::vector<Row> rows;
  all.reserve(examples.size());
  for (const Example& example : examples) {
    all.push_back(masked(example));
    rows.push_back({example.index, &all.back().tokens, &example.segments});
  }
  Batch batch = pad_rows(rows, setting_.sequence_length, std::max(0, setting_.tokenizer->special().pad));
  std::vector<int64_t> positions, labels, next;
  for (size_t i = 0; i < all.size(); ++i) {
    for (const int32_t position : all[i].positions)
      positions.push_back(static_cast<int64_t>(i) * batch.sequence() + position);
    labels.insert(labels.end(), all[i].labels.begin(), all[i].labels.end());
    if (next_sentence_ && examples[i].next_sentence < 0) {
      throw Error(
          "objective mlm_nsp: the data do not say whether the second sentence follows; valid: sentence "
          "pairs, or "
          "objective mlm");
    }
    next.push_back(examples[i].next_sentence);
  }
  set_labels(batch, std::move(positions), std::move(labels));
  if (next_sentence_) {
    batch.next_sentence = index_tensor(next);
    batch.counts.push_back(static_cast<int64_t>(next.size()));
  }
  return batch;
}

}  // namespace

ObjectivePtr make_masked_lm(const MaskingConfig& config, bool next_sentence,
                            const ObjectiveSetting& setting) {
  return std::make_shared<MaskedLm>(config, next_sentence, setting);
}

}  // namespace tessera
