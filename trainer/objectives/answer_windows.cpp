#include "trainer/objectives/answer_windows.h"

#include <fmt/format.h>

#include <algorithm>

#include "datasets/tokenizer/unicode.h"
#include "recipes/error.h"

namespace tessera {
namespace {

int64_t count_characters(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return unicode::starts_character(c); });
}

/// The characters [begin, end).
std::string cut_characters(const std::string& text, int64_t begin, int64_t end) {
  int64_t character = -1;
  size_t from = text.size(), to = text.size();
  for (size_t i = 0; i < text.size(); ++i) {
    character += unicode::starts_character(text[i]);
    if (character == begin && from == text.size()) from = i;
    if (character == end) {
      to = i;
      break;
    }
  }
  return text.substr(from, std::max(from, to) - from);
}

using Offsets = std::vector<std::pair<int64_t, int64_t>>;

/// First and last of the tokens [begin, end) that hold the characters, as transformers' run_qa looks for
/// them; {-1, -1} where these tokens do not cover the answer.
std::pair<int64_t, int64_t> find_tokens(const Offsets& offsets, int64_t begin, int64_t end, int64_t from,
                                        int64_t to) {
  if (begin >= end || from < 0) return {-1, -1};
  const auto at = [&](int64_t i) { return offsets[static_cast<size_t>(i)]; };
  if (at(begin).first > from || at(end - 1).second < to) return {-1, -1};
  int64_t first = begin, last = end - 1;
  while (first < end && at(first).first <= from) ++first;
  while (last >= begin && at(last).second >= to) --last;
  return {first - 1, last + 1};
}

}  // namespace

AnswerWindows::AnswerWindows(const std::string& path, const QuestionAnsweringOptions& options, RowMaker rows)
    : records_(Records::open(path)), options_(options), tokenizer_(rows.tokenizer()) {
  const int64_t most = rows.longest() - rows.num_special(2) - 2;
  if (options.stride > most) {
    throw Error(fmt::format(
        "objective.stride: windows of {} tokens cannot share {} of them; valid: {}at most {}", rows.longest(),
        options.stride, most < 0 ? "a larger data.sequence_length, " : "", std::max<int64_t>(0, most)));
  }
  for (int64_t i = 0; i < records_.size(); ++i) add_windows(i, rows);
  std::string cut = fmt::format("windows of {} questions", records_.size());
  if (!rows.note().empty()) cut += "; questions: " + rows.note();
  if (num_misplaced_ > 0) cut += fmt::format("; {} answers are not where answer_start says", num_misplaced_);
  windows_.set_note(path, cut);
}

std::vector<std::string> AnswerWindows::answers(int64_t question) const {
  if (!records_.has(question, options_.answers)) return {};
  return records_.texts(question, options_.answers + ".text");
}

AnswerWindows::Answer AnswerWindows::answer_of(int64_t question, const std::string& context) const {
  const auto texts = answers(question);
  if (texts.empty()) return {};
  const auto starts = records_.integers(question, options_.answers + ".answer_start");
  if (starts.size() != texts.size()) {
    throw Error(fmt::format("{}: {} answers but {} places in '{}.answer_start'", records_.where(question),
                            texts.size(), starts.size(), options_.answers));
  }
  const Answer answer{starts.front(), starts.front() + count_characters(texts.front())};
  const int64_t characters = count_characters(context);
  if (answer.begin >= 0 && answer.end <= characters) return answer;
  throw Error(fmt::format("{}: the answer '{}' at character {} lies outside its context of {} characters",
                          records_.where(question), texts.front(), answer.begin, characters));
}

void AnswerWindows::add_windows(int64_t question, RowMaker& rows) {
  const std::string text = records_.text(question, options_.context);
  const Encoding context = tokenizer_->encode_with_offsets(text);
  std::vector<int32_t> asked = tokenizer_->encode(records_.text(question, options_.question));
  // Windows must go on, by a token at least.
  const auto longest = static_cast<size_t>(rows.longest() - rows.num_special(2) - options_.stride - 1);
  if (asked.size() > longest) {
    rows.count_cut(static_cast<int64_t>(asked.size() - longest));
    asked.resize(longest);
  }
  const Answer answer = answer_of(question, text);
  knows_no_answer_ = knows_no_answer_ || answer.begin < 0;
  if (answer.begin >= 0 && cut_characters(text, answer.begin, answer.end) != answers(question).front()) {
    ++num_misplaced_;
  }
  const auto size = static_cast<int64_t>(context.ids.size());
  const int64_t room = rows.longest() - rows.num_special(2) - static_cast<int64_t>(asked.size());
  const int64_t before = static_cast<int64_t>(asked.size()) + (rows.framed() ? 2 : 0);
  for (int64_t begin = 0;; begin += room - options_.stride) {
    const int64_t end = std::min(size, begin + room);
    Example example = rows.pair(asked, {context.ids.begin() + begin, context.ids.begin() + end});
    const auto [first, last] = find_tokens(context.offsets, begin, end, answer.begin, answer.end);
    const bool found = first >= begin && last >= first && last < end;
    const auto place = [&](int64_t token) { return static_cast<int32_t>(token - begin + before); };
    example.labels = {found ? place(first) : 0, found ? place(last) : 0, place(begin), place(end)};
    windows_.add(example);
    places_.push_back({static_cast<int32_t>(question), static_cast<int32_t>(begin - before)});
    if (end == size) return;
  }
}

AnswerWindows::Context::Context(const AnswerWindows& windows, int64_t question)
    : windows_(windows),
      text_(windows.records_.text(question, windows.options_.context)),
      offsets_(windows.tokenizer_->encode_with_offsets(text_).offsets) {}

std::string AnswerWindows::Context::text(int64_t window, int64_t first, int64_t last) const {
  const int64_t shift = windows_.places_[static_cast<size_t>(window)].shift;
  const auto begin = static_cast<size_t>(first + shift), end = static_cast<size_t>(last + shift);
  return cut_characters(text_, offsets_.at(begin).first, offsets_.at(end).second);
}

}  // namespace tessera
