#include "launch/few_shot_task.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "datasets/permutation.h"
#include "recipes/layers.h"
#include "recipes/random.h"
#include "recipes/said_at.h"

namespace tessera {
namespace {

// What a file may ask for: more would be a mistake, or an attack on the memory.
constexpr size_t most_choices = 4096;
constexpr size_t longest_text = size_t{64} << 20;

void check_choices(const std::vector<std::string>& choices, const std::string& where) {
  if (choices.empty() || choices.size() > most_choices) {
    throw Error(fmt::format("{} has {} choices; valid: 1 to {}", where, choices.size(), most_choices));
  }
  const auto empty = std::find(choices.begin(), choices.end(), "") - choices.begin();
  if (empty < static_cast<int64_t>(choices.size())) {
    throw Error(fmt::format("{}: choice {} is empty; valid: texts", where, empty));
  }
}

}  // namespace

bool Value<ChoiceTexts>::read(const Section& section, ChoiceTexts& value, const Rules& rules,
                              Problems& problems) {
  value = {};
  if (section.kind == Section::Kind::scalar && !section.text.empty()) {
    value.column = section.text;
    return true;
  }
  if (section.kind != Section::Kind::list || section.items.empty()) {
    const bool empty = section.kind == Section::Kind::list;
    problems.add(
        "", (empty ? "the list is empty" : describe(section) + " is neither") + "; valid: " + valid(rules));
    return false;
  }
  if (!Value<std::vector<std::string>>::read(section, value.texts, rules, problems)) return false;
  const bool whole = std::find(value.texts.begin(), value.texts.end(), "") == value.texts.end();
  if (!whole) problems.add("", "one of the choices is empty; valid: texts");
  return whole;
}

Section Value<ChoiceTexts>::write(const ChoiceTexts& value) {
  return value.column.empty() ? Value<std::vector<std::string>>::write(value.texts)
                              : Value<std::string>::write(value.column);
}

Error FewShotTask::error(const std::string& key, const std::string& what) const {
  ProblemList list;
  Problems(list, source.get(), source->place, "").add(key, what);
  return Error(list.text());
}

FewShotTask read_few_shot_task(const std::string& path, const std::vector<std::string>& overrides) {
  ProblemList list;
  std::optional<Section> root = load_layers(path, list);
  list.throw_if_any();
  for (const auto& assignment : overrides) apply_override(*root, assignment, list);
  FewShotTask task;
  task.source = std::make_shared<const Section>(std::move(*root));
  Problems problems(list, task.source.get(), task.source->place, "");
  read_fields(*task.source, task, problems);
  list.throw_if_any();
  return task;
}

Questions::Questions(FewShotTask task) : task_(std::move(task)), data_(Records::open(task_.data)) {
  parse_template();
  check_columns(data_);
  check_examples();
}

void Questions::parse_template() {
  const std::string& text = task_.prompt;
  Part part;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c != '{' && c != '}') {
      part.literal += c;
    } else if (i + 1 < text.size() && text[i + 1] == c) {
      part.literal += text[i++];
    } else {
      const size_t end = text.find_first_of("{}", i + 1);
      if (c == '}' || end == text.npos || text[end] == '{' || end == i + 1) {
        throw task_.error("template",
                          fmt::format("no column's name in braces at '{:.20}'; valid: {{column}}, "
                                      "and {{{{ or }}}} for a brace itself",
                                      text.substr(i)));
      }
      part.column = text.substr(i + 1, end - i - 1);
      template_.push_back(std::exchange(part, {}));
      i = end;
    }
  }
  template_.push_back(part);
}

void Questions::check_columns(const Records& records) const {
  const auto require = [&](const char* key, const std::string& column) {
    if (!column.empty()) said_at(task_, key, [&] { return records.json(0, column); });
  };
  for (const Part& part : template_) require("template", part.column);
  require("choices", task_.choices.column);
  require("answer", task_.answer);
}

void Questions::check_examples() {
  if (task_.shots == 0) return;
  if (!task_.examples) {
    throw task_.error("shots",
                      fmt::format("{}, but there are no examples to draw them from; valid: a file for "
                                  "the key 'examples', or 0 shots",
                                  task_.shots));
  }
  examples_ = Records::open(*task_.examples);
  check_columns(*examples_);
  same_file_ = std::filesystem::equivalent(*task_.examples, task_.data);
  const int64_t most = examples_->size() - (same_file_ ? 1 : 0);
  if (task_.shots > most) {
    throw task_.error("shots", fmt::format("{}, but {} has {} examples to choose from; valid: at most {}",
                                           task_.shots, *task_.examples, most, most));
  }
}

Question Questions::question(const Records& records, int64_t i) const {
  Question question;
  for (const Part& part : template_) {
    question.prompt += part.literal;
    if (!part.column.empty()) question.prompt += records.text(i, part.column);
  }
  const std::string& column = task_.choices.column;
  question.choices = column.empty() ? task_.choices.texts : records.texts(i, column);
  check_choices(question.choices, fmt::format("{}: column '{}'", records.where(i), column));
  question.answer = answer(records, i, question.choices);
  return question;
}

size_t Questions::answer(const Records& records, int64_t i, const std::vector<std::string>& choices) const {
  const auto value = records.json(i, task_.answer);
  if (value.is_string()) {
    const auto found = std::find(choices.begin(), choices.end(), value.get<std::string>());
    if (found != choices.end()) return static_cast<size_t>(found - choices.begin());
  }
  const auto refuse = [&] {
    const std::string given = value.dump();
    return Error(
        fmt::format("{}: column '{}' is {:.60}; valid: a number from 0 to {}, or the text of a choice",
                    records.where(i), task_.answer, given, choices.size() - 1));
  };
  int64_t number = -1;
  try {
    number = records.integer(i, task_.answer);
  } catch (const Error&) {
    throw refuse();
  }
  if (number < 0 || static_cast<size_t>(number) >= choices.size()) throw refuse();
  return static_cast<size_t>(number);
}

std::string Questions::preceding(int64_t i) const {
  std::string text = task_.description;
  const int64_t pool = task_.shots > 0 ? examples_->size() - (same_file_ ? 1 : 0) : 0;
  const uint64_t key = mix(task_.seed, static_cast<uint64_t>(i));
  for (int64_t shot = 0; shot < task_.shots; ++shot) {
    int64_t drawn = permute(shot, pool, key);
    if (same_file_ && drawn >= i) ++drawn;
    const Question example = question(*examples_, drawn);
    text += example.prompt + task_.target_delimiter + example.choices[example.answer] + task_.separator;
    if (text.size() > longest_text) {
      throw Error(fmt::format("{}: the examples before it are longer than 64 MiB; valid: fewer shots",
                              data_.where(i)));
    }
  }
  return text;
}

}  // namespace tessera
