#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>

#include "datasets/records.h"
#include "recipes/error.h"
#include "trainer/objectives/objectives.h"
#include "trainer/objectives/padding.h"
#include "trainer/objectives/task_batch.h"
#include "trainer/objectives/task_examples.h"

namespace tessera {
namespace {

/// Text with {names} in it.
std::string fill_in(const std::string& text, const std::function<std::string(const std::string&)>& value) {
  std::string filled;
  size_t at = 0;
  while (at < text.size()) {
    const size_t open = text.find('{', at), close = text.find('}', open);
    if (close == text.npos) break;
    filled += text.substr(at, open - at) + value(text.substr(open + 1, close - open - 1));
    at = close + 1;
  }
  return filled + text.substr(std::min(at, text.size()));
}

/// Whether a token is learnt that another one comes before.
bool learns(const Example& example) {
  for (size_t i = 0; i + 1 < example.labels.size(); i += 2) {
    const auto end = std::min(example.labels[i + 1], static_cast<int32_t>(example.tokens.size()));
    if (std::max(1, example.labels[i]) < end) return true;
  }
  return false;
}

/// What follows a prompt. An example's labels: pairs of [begin, end), the tokens that are learnt.
class Instruction : public Objective {
 public:
  Instruction(const InstructionOptions& options, const ObjectiveSetting& setting)
      : options_(options), setting_(setting) {
    if (options_.turn.find("{content}") == options_.turn.npos) {
      throw Error(
          fmt::format("objective.turn: '{}' has no {{content}}; valid: text with {{role}} and {{content}}",
                      options_.turn));
    }
  }
  const std::vector<std::string>& terms() const override { return terms_; }
  ExampleKind example_kind() const override { return ExampleKind::causal; }

  DatasetPtr open(const std::string& path) const override;
  Batch collate(const std::vector<Example>& examples) const override;
  LossTerms loss(const Model& model, const at::Tensor& hidden, const Batch& batch,
                 const DropoutState&) const override {
    const ops::TokenLoss tokens = model.token_loss(hidden, batch);
    return {tokens.sum.unsqueeze(0), tokens.correct.unsqueeze(0)};
  }

 private:
  void say(const std::string& text, bool learnt, Example& example) const;
  void end_turn(Example& example) const;
  Example encode(const Records& records, int64_t i) const;
  Example encode_messages(const Records& records, int64_t i) const;

  InstructionOptions options_;
  ObjectiveSetting setting_;
  std::vector<std::string> terms_{"lm"};
};

void Instruction::say(const std::string& text, bool learnt, Example& example) const {
  const auto begin = static_cast<int32_t>(example.tokens.size());
  setting_.tokenizer->encode(text, example.tokens);
  const auto end = static_cast<int32_t>(example.tokens.size());
  if (learnt && end > begin) example.labels.insert(example.labels.end(), {begin, end});
}

/// The end of what was learnt is learnt too.
void Instruction::end_turn(Example& example) const {
  const auto at = static_cast<int32_t>(example.tokens.size());
  if (setting_.tokenizer->special().end < 0) return;
  example.tokens.push_back(setting_.tokenizer->special().end);
  example.labels.insert(example.labels.end(), {at, at + 1});
}

Example Instruction::encode(const Records& records, int64_t i) const {
  Example example;
  if (options_.messages) return encode_messages(records, i);
  const auto column = [&](const std::string& name) { return records.text(i, name); };
  say(fill_in(options_.template_text, column), options_.train_on_prompt, example);
  say(records.text(i, options_.response), true, example);
  end_turn(example);
  return example;
}

Example Instruction::encode_messages(const Records& records, int64_t i) const {
  Example example;
  const auto messages = records.json(i, *options_.messages);
  const auto is_text = [](const nlohmann::ordered_json& message, const char* key) {
    return message.is_object() && message.contains(key) && message[key].is_string();
  };
  const size_t content_at = options_.turn.find("{content}");
  for (const auto& message : messages) {
    if (!messages.is_array() || !is_text(message, "role") || !is_text(message, "content")) {
      throw Error(fmt::format("{}: column '{}' is no list of {{\"role\": text, \"content\": text}}",
                              records.where(i), *options_.messages));
    }
    const auto value = [&](const std::string& name) {
      if (message.contains(name) && message[name].is_string()) return message[name].get<std::string>();
      throw Error(fmt::format("objective.turn: {{{}}} is not in the message at {}; valid: role, content",
                              name, records.where(i)));
    };
    const bool answers = message["role"] == "assistant";
    say(fill_in(options_.turn.substr(0, content_at), value), options_.train_on_prompt, example);
    say(fill_in(options_.turn.substr(content_at), value), answers || options_.train_on_prompt, example);
    if (answers) end_turn(example);
  }
  return example;
}

DatasetPtr Instruction::open(const std::string& path) const {
  const Records records = Records::open(path);
  auto examples = std::make_shared<TaskExamples>();
  const int64_t longest = setting_.sequence_length + 1;  // the last one is a label only
  int64_t num_cut = 0, num_dropped = 0, num_without = 0;
  for (int64_t i = 0; i < records.size(); ++i) {
    Example example = encode(records, i);
    const auto length = static_cast<int64_t>(example.tokens.size());
    if (length > longest) {
      ++num_cut;
      num_dropped += length - longest;
      example.tokens.resize(static_cast<size_t>(longest));
    }
    if (!learns(example)) {
      ++num_without;
      continue;
    }
    examples->add(example);
  }
  if (examples->size() == 0) {
    throw Error(fmt::format("{}: no sample has anything to learn within data.sequence_length {}", path,
                            setting_.sequence_length));
  }
  std::string cut;
  if (num_cut > 0)
    cut = fmt::format("{} cut to {} tokens, {} tokens left out", num_cut, longest, num_dropped);
  if (num_without > 0) {
    cut += fmt::format("{}{} samples passed over: no response within the length", cut.empty() ? "" : "; ",
                       num_without);
  }
  examples->set_note(path, cut);
  return examples;
}

Batch Instruction::collate(const std::vector<Example>& examples) const {
  Batch batch = collate_rows(examples, setting_);
  batch.attention_mask = at::Tensor();
  std::vector<int64_t> positions, labels;
  for (size_t i = 0; i < examples.size(); ++i) {
    const auto& tokens = examples[i].tokens;
    const auto& learnt = examples[i].labels;
    for (size_t span = 0; span + 1 < learnt.size(); span += 2) {
      const auto end = std::min(static_cast<int64_t>(tokens.size()), static_cast<int64_t>(learnt[span + 1]));
      for (int64_t at = std::max(1, learnt[span]); at < end; ++at) {
        positions.push_back(static_cast<int64_t>(i) * batch.sequence() + at - 1);
        labels.push_back(tokens[static_cast<size_t>(at)]);
      }
    }
  }
  set_labels(batch, std::move(positions), std::move(labels));
  return batch;
}

}  // namespace

ObjectivePtr make_instruction(const InstructionOptions& options, const ObjectiveSetting& setting) {
  return std::make_shared<Instruction>(options, setting);
}

}  // namespace tessera
