#include <fmt/format.h>
#include <unicode/ucasemap.h>

#include <algorithm>
#include <memory>
#include <string_view>
#include <unordered_map>

#include "datasets/tokenizer/unicode.h"
#include "recipes/error.h"
#include "trainer/task_metrics.h"

namespace tessera {
namespace {

/// With the context that Greek needs: the last Σ of a word becomes ς.
std::string lowercase(const std::string& text) {
  constexpr size_t longest = size_t{1} << 28;
  UErrorCode failure = U_ZERO_ERROR;
  const std::unique_ptr<UCaseMap, decltype(&ucasemap_close)> map(ucasemap_open("", 0, &failure),
                                                                 &ucasemap_close);
  if (text.size() > longest || U_FAILURE(failure))
    throw Error(fmt::format("an answer of {} bytes; valid: at most {}", text.size(), longest));
  const auto length = static_cast<int32_t>(text.size());
  std::string lower(text.size() * 3 + 1, '\0');  // İ grows from two bytes to three
  const int32_t written = ucasemap_utf8ToLower(map.get(), lower.data(), static_cast<int32_t>(lower.size()),
                                               text.data(), length, &failure);
  lower.resize(written);
  return lower;
}

bool is_ascii_punctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

/// Python's str.isspace(), isalnum(): what its split() and \b go by.
bool is_python_space(char32_t c) { return unicode::is_whitespace(c) || (c >= 0x1C && c <= 0x1F); }
bool is_python_word(char32_t c) { return unicode::is_letter(c) || unicode::is_number(c); }

/// The text cut where word and other characters meet, and at spaces, which are left out; `joined` holds where
/// a piece follows the one before it without a space.
struct Piece {
  std::string_view text;
  bool joined;
};
std::vector<Piece> pieces_of(const std::string& text) {
  std::vector<Piece> pieces;
  const char* end = text.data() + text.size();
  bool was_space = true, was_word = false;
  for (const char* p = text.data(); p < end;) {
    const char* begin = p;
    const char32_t c = unicode::next(p);
    const bool space = is_python_space(c), word = is_python_word(c);
    const auto bytes = static_cast<size_t>(p - begin);
    if (!space && (was_space || word != was_word)) {
      pieces.push_back({{begin, bytes}, !was_space});
    } else if (!space) {
      pieces.back().text = {pieces.back().text.data(), pieces.back().text.size() + bytes};
    }
    was_space = space;
    was_word = word;
  }
  return pieces;
}

std::vector<std::string> normalized_words(const std::string& text) {
  std::string kept = lowercase(unicode::repaired(text));
  kept.erase(std::remove_if(kept.begin(), kept.end(), is_ascii_punctuation), kept.end());
  std::vector<std::string> words;
  bool after_article = false;
  for (const Piece& piece : pieces_of(kept)) {
    const bool article = piece.text == "a" || piece.text == "an" || piece.text == "the";
    if (!article && piece.joined && !after_article) {
      words.back() += piece.text;
    } else if (!article) {
      words.emplace_back(piece.text);
    }
    after_article = article;
  }
  return words;
}

double word_f1(const std::vector<std::string>& truth, const std::vector<std::string>& prediction) {
  std::unordered_map<std::string, int64_t> left;
  for (const std::string& word : truth) ++left[word];
  int64_t right = 0;
  for (const std::string& word : prediction) {
    const auto found = left.find(word);
    if (found != left.end() && found->second-- > 0) ++right;
  }
  const MatchCounts counts{right, static_cast<int64_t>(prediction.size()),
                           static_cast<int64_t>(truth.size())};
  return counts.ratios().f1;
}

SpanScores score_question(const std::vector<std::string>& golds, const std::string& prediction,
                          SquadVersion version) {
  const std::vector<std::string> words = normalized_words(prediction);
  SpanScores best{0, 0, 1};
  const auto compare = [&](const std::vector<std::string>& gold) {
    const bool same = gold == words, none = gold.empty() && version == SquadVersion::v2;
    best.exact_match = std::max(best.exact_match, same ? 1.0 : 0.0);
    best.f1 = std::max(best.f1, none && same ? 1.0 : word_f1(gold, words));
  };
  bool compared = false;
  for (const std::string& text : golds) {
    const std::vector<std::string> gold = normalized_words(text);
    if (gold.empty() && version == SquadVersion::v2) continue;  // counts only where there is no other
    compare(gold);
    compared = true;
  }
  if (!compared) compare({});
  return best;
}

void add_question(SpanScores& sum, const SpanScores& question) {
  sum.exact_match += question.exact_match;
  sum.f1 += question.f1;
  sum.questions += question.questions;
}

}  // namespace

std::string normalize_answer(const std::string& text) { return join(normalized_words(text), " "); }

AnswerScores score_answers(const std::vector<std::vector<std::string>>& truths,
                           const std::vector<std::string>& predictions, SquadVersion version) {
  if (truths.size() != predictions.size())
    throw Error(fmt::format("{} questions but {} predictions", truths.size(), predictions.size()));
  AnswerScores scores;
  for (size_t i = 0; i < truths.size(); ++i) {
    const bool has_answer = std::any_of(truths[i].begin(), truths[i].end(),
                                        [](const std::string& answer) { return !answer.empty(); });
    if (!has_answer && version == SquadVersion::v1) {
      throw Error(
          fmt::format("question {} has no answer, which SQuAD's version 1 does not know; valid: "
                      "version 2",
                      i));
    }
    const SpanScores question = score_question(truths[i], predictions[i], version);
    add_question(scores.all, question);
    add_question(has_answer ? scores.with_answer : scores.without_answer, question);
  }
  for (SpanScores* s : {&scores.all, &scores.with_answer, &scores.without_answer}) {
    const auto questions = static_cast<double>(std::max<int64_t>(1, s->questions));
    s->exact_match /= questions;
    s->f1 /= questions;
  }
  return scores;
}

}  // namespace tessera
