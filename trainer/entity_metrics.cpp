#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "datasets/tokenizer/unicode.h"
#include "recipes/error.h"
#include "trainer/task_metrics.h"

namespace tessera {
namespace {

/// "B-PER" cut into 'B' and "PER"; a letter out of ASCII becomes 0, which no rule mentions.
struct Tag {
  char letter = 'O';
  std::string_view type;
};

Tag cut_tag(const std::string& tag, size_t sentence) {
  if (tag.empty())
    throw Error(
        fmt::format("an empty tag in sentence {}; valid: O, B-TYPE, I-TYPE, E-TYPE, S-TYPE", sentence));
  size_t length = 1;
  while (length < tag.size() && !unicode::starts_character(tag[length])) ++length;
  std::string_view type = std::string_view(tag).substr(length);
  const size_t dash = type.find('-');
  if (dash != type.npos) type.remove_prefix(dash + 1);
  return {length == 1 ? tag[0] : '\0', type.empty() ? "_" : type};
}

bool is_among(char letter, std::string_view letters) { return letters.find(letter) != letters.npos; }

/// Does an entity end with `last`, given the next tag? Table of conlleval.
bool ends(const Tag& last, const Tag& next) {
  if (is_among(last.letter, "ES")) return true;
  if (is_among(last.letter, "BI") && is_among(next.letter, "BSO")) return true;
  return !is_among(last.letter, "O.") && last.type != next.type;
}

/// Does an entity start with `next`, given the tag before?
bool starts(const Tag& last, const Tag& next) {
  if (is_among(next.letter, "BS")) return true;
  if (is_among(last.letter, "ESO") && is_among(next.letter, "EI")) return true;
  return !is_among(next.letter, "O.") && last.type != next.type;
}

}  // namespace

std::vector<Entity> find_entities(const std::vector<std::vector<std::string>>& tags) {
  std::vector<Entity> entities;
  for (size_t s = 0; s < tags.size(); ++s) {
    Tag last;
    int64_t begin = 0;
    for (size_t i = 0; i <= tags[s].size(); ++i) {
      const Tag next = i < tags[s].size() ? cut_tag(tags[s][i], s) : Tag{'O', "_"};
      const auto word = static_cast<int64_t>(i);
      if (ends(last, next))
        entities.push_back({std::string(last.type), static_cast<int64_t>(s), begin, word});
      if (starts(last, next)) begin = word;
      last = next;
    }
  }
  return entities;
}

EntityScores score_entities(const std::vector<std::vector<std::string>>& truths,
                            const std::vector<std::vector<std::string>>& predictions) {
  if (truths.size() != predictions.size())
    throw Error(fmt::format("{} sentences but predictions for {}", truths.size(), predictions.size()));
  int64_t words = 0, right = 0;
  for (size_t s = 0; s < truths.size(); ++s) {
    if (truths[s].size() != predictions[s].size()) {
      throw Error(fmt::format("sentence {} has {} tags but {} predictions", s, truths[s].size(),
                              predictions[s].size()));
    }
    for (size_t i = 0; i < truths[s].size(); ++i) right += truths[s][i] == predictions[s][i];
    words += static_cast<int64_t>(truths[s].size());
  }
  std::map<std::string, MatchCounts> types;
  std::vector<Entity> expected = find_entities(truths);
  std::sort(expected.begin(), expected.end());
  for (const Entity& entity : expected) ++types[entity.type].truth;
  for (const Entity& entity : find_entities(predictions)) {
    MatchCounts& counts = types[entity.type];
    ++counts.predicted;
    counts.right += std::binary_search(expected.begin(), expected.end(), entity);
  }
  EntityScores scores;
  MatchCounts all;
  for (const auto& [type, counts] : types) {
    scores.types[type] = counts.ratios();
    all.add(counts);
  }
  scores.all = all.ratios();
  scores.accuracy = words == 0 ? 0 : static_cast<double>(right) / static_cast<double>(words);
  return scores;
}

}  // namespace tessera
