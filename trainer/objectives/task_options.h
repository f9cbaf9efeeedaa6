#pragma once
#include <optional>
#include <string>
#include <vector>

#include "recipes/fields.h"

/// The options of the objectives that read their own files (datasets/records.h): fine-tuning tasks.
namespace tessera {

/// Which text of a pair gives way where both are too long, as in the tokenizers library.
enum class Truncate { longest_first, only_first, only_second };
inline std::vector<std::string> names_of(Truncate) { return {"longest_first", "only_first", "only_second"}; }

enum class Problem { single_label, multi_label, regression };
inline std::vector<std::string> names_of(Problem) { return {"single_label", "multi_label", "regression"}; }

struct SequenceClassificationOptions {
  std::string text = "text";
  std::optional<std::string> text_pair;
  std::string label = "label";
  std::vector<std::string> labels;
  Problem problem = Problem::single_label;
  Truncate truncate = Truncate::longest_first;
};
template <class V>
void fields(SequenceClassificationOptions& t, V& v) {
  v("text", t.text, "column with the text", new_phase);
  v("text_pair", t.text_pair, "column with a second text; null: there is none", new_phase);
  v("label", t.label,
    "column with the class; `multi_label`: with a list of them; `regression`: with a number or a list of "
    "them",
    new_phase);
  v("labels", t.labels,
    "names of the classes, in the order of the outputs; the column has these, or their numbers from 0 on; "
    "empty: those in the training data, sorted");
  v("problem", t.problem,
    "`single_label`: one class each; `multi_label`: any number of them; `regression`: numbers");
  v("truncate", t.truncate,
    "what pairs lose that are too long: tokens of the longer text, or of the one named; texts lose their end",
    new_phase);
}

struct TokenClassificationOptions {
  std::string tokens = "tokens";
  std::string tags = "tags";
  std::vector<std::string> labels;
  bool label_all_pieces = false;
  bool space_before_words = false;
};
template <class V>
void fields(TokenClassificationOptions& t, V& v) {
  v("tokens", t.tokens, "column with the list of words", new_phase);
  v("tags", t.tags, "column with the list of their tags (B-PER, I-PER, O)", new_phase);
  v("labels", t.labels,
    "names of the tags, in the order of the outputs; the column has these, or their numbers from 0 on; "
    "empty: "
    "those in the training data, sorted");
  v("label_all_pieces", t.label_all_pieces,
    "all pieces of a word learn its tag; false: the first one alone, which is the one that counts in metrics",
    new_phase);
  v("space_before_words", t.space_before_words,
    "words but the first are encoded with a space before them, as byte-level tokenizers know them",
    new_phase);
}

struct QuestionAnsweringOptions {
  std::string question = "question";
  std::string context = "context";
  std::string answers = "answers";
  int64_t stride = 128;
  int64_t max_answer_length = 30;
  double null_threshold = 0;
};
template <class V>
void fields(QuestionAnsweringOptions& t, V& v) {
  v("question", t.question, "column with the question", new_phase);
  v("context", t.context, "column with the text that holds the answer", new_phase);
  v("answers", t.answers,
    "column with {text: [...], answer_start: [...]} as SQuAD has it (places in characters); none: no answer",
    new_phase);
  v("stride", t.stride, "tokens that two windows of a long context share", at_least(0), new_phase);
  v("max_answer_length", t.max_answer_length, "longest predicted answer, in tokens", at_least(1), changeable);
  v("null_threshold", t.null_threshold,
    "`no answer` is predicted where its score exceeds the best answer's by more than this, if some questions "
    "of the file have none",
    changeable);
}

struct MultipleChoiceOptions {
  std::string question = "question";
  std::string choices = "choices";
  std::string answer = "answer";
  Truncate truncate = Truncate::longest_first;
};
template <class V>
void fields(MultipleChoiceOptions& t, V& v) {
  v("question", t.question, "column with the question, or the beginning of the text", new_phase);
  v("choices", t.choices, "column with the list of answers, or of endings", new_phase);
  v("answer", t.answer, "column with the right one: its text, or its number from 0 on", new_phase);
  v("truncate", t.truncate, "what is cut where question and choice are too long", new_phase);
}

struct InstructionOptions {
  std::string template_text = "{prompt}";
  std::string response = "response";
  std::optional<std::string> messages;
  std::string turn = "{role}: {content}\n";
  bool train_on_prompt = false;
};
template <class V>
void fields(InstructionOptions& t, V& v) {
  v("template", t.template_text, "the prompt: text with {columns} in it", new_phase);
  v("response", t.response, "column with what is to be answered", new_phase);
  v("messages", t.messages,
    "column with a list of {role, content} in place of prompt and response; what the role `assistant` says "
    "is "
    "learnt",
    new_phase);
  v("turn", t.turn, "a message as text: {role} and {content}", new_phase);
  v("train_on_prompt", t.train_on_prompt, "prompts count in the loss too", new_phase);
}

}  // namespace tessera
