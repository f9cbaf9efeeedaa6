#include "trainer/objectives/objectives.h"

#include <algorithm>

namespace tessera {
namespace {

// A new objective is one file, one entry here, and a line in kind_of().
const Registry<ObjectivePtr, const ObjectiveSetting&>& objectives() {
  static const Registry<ObjectivePtr, const ObjectiveSetting&> registry(
      "name",
      {
          {choice<MaskingConfig>("mlm_nsp", "masked words, and whether the second sentence follows (BERT)"),
           [](const Choice& chosen, const ObjectiveSetting& setting) {
             return make_masked_lm(chosen.as<MaskingConfig>(), /*next_sentence=*/true, setting);
           }},
          {choice<MaskingConfig>("mlm", "masked words"),
           [](const Choice& chosen, const ObjectiveSetting& setting) {
             return make_masked_lm(chosen.as<MaskingConfig>(), /*next_sentence=*/false, setting);
           }},
          {choice<CausalConfig>("causal_lm", "the next word (GPT)"),
           [](const Choice&, const ObjectiveSetting& setting) { return make_causal_lm(setting); }},
          {choice<InstructionOptions>("instruction", "responses to prompts (GPT)"),
           [](const Choice& chosen, const ObjectiveSetting& setting) {
             return make_instruction(chosen.as<InstructionOptions>(), setting);
           }},
          {choice<SequenceClassificationOptions>("sequence_classification",
                                                 "classes or numbers of texts and pairs of texts"),
           [](const Choice& chosen, const ObjectiveSetting& setting) {
             return make_sequence_classification(chosen.as<SequenceClassificationOptions>(), setting);
           }},
          {choice<TokenClassificationOptions>("token_classification", "a tag for each word"),
           [](const Choice& chosen, const ObjectiveSetting& setting) {
             return make_token_classification(chosen.as<TokenClassificationOptions>(), setting);
           }},
          {choice<QuestionAnsweringOptions>("question_answering",
                                            "the part of a text that answers a question"),
           [](const Choice& chosen, const ObjectiveSetting& setting) {
             return make_question_answering(chosen.as<QuestionAnsweringOptions>(), setting);
           }},
          {choice<MultipleChoiceOptions>("multiple_choice", "the right one of several answers"),
           [](const Choice& chosen, const ObjectiveSetting& setting) {
             return make_multiple_choice(chosen.as<MultipleChoiceOptions>(), setting);
           }},
      });
  return registry;
}

Heads task_heads(TaskHead task, size_t outputs, int64_t otherwise) {
  return {
      .vocabulary = false, .task = task, .outputs = outputs > 0 ? static_cast<int64_t>(outputs) : otherwise};
}

}  // namespace

const ChoiceTable& objective_choices() { return objectives().choices(); }

ObjectivePtr make_objective(const Choice& choice, const ObjectiveSetting& setting) {
  return objectives().make(choice, setting);
}

ObjectiveKind kind_of(const Choice& objective) {
  const std::string& name = objective.name();
  const std::vector<std::string> both{"bert", "gpt"};
  if (name == "mlm_nsp") return {{.next_sentence = true}, false, {"bert"}};
  if (name == "causal_lm") return {{}, false, {"gpt"}};
  if (name == "instruction") return {{}, true, {"gpt"}};
  if (const auto* options = objective.get_if<SequenceClassificationOptions>()) {
    const int64_t least = options->problem == Problem::single_label ? 2 : 1;
    return {task_heads(TaskHead::sequence, options->labels.size(), least), true, both};
  }
  if (const auto* options = objective.get_if<TokenClassificationOptions>()) {
    return {task_heads(TaskHead::tokens, options->labels.size(), 2), true, both};
  }
  if (name == "question_answering") return {task_heads(TaskHead::span, 2, 2), true, both};
  if (name == "multiple_choice") return {task_heads(TaskHead::sequence, 1, 1), true, both};
  return {{}, false, {"bert"}};
}

ObjectiveSetting objective_setting(const Recipe& recipe, TokenizerPtr tokenizer, bool with_data) {
  ObjectiveSetting setting{std::move(tokenizer), recipe.data.sequence_length, recipe.run.seed};
  setting.causal = recipe.model.name() == "gpt";
  if (!with_data || !kind_of(recipe.objective).reads_records) return setting;
  for (const auto& source : recipe.data.train.sources) setting.training.push_back(source.path);
  return setting;
}

}  // namespace tessera
