#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tessera {

/// One training example, before collation: what every source gives and every objective takes.
struct Example {
  int64_t index = 0;              ///< global sample index: the seed of all that is random about this sample
  std::vector<int32_t> tokens;    ///< token ids, special tokens included where the source puts them
  std::vector<int32_t> segments;  ///< 0/1 per token (sentence A/B), or empty
  std::vector<int32_t>
      masked_positions;  ///< already masked data only (NVIDIA's files): where, and the original ids
  std::vector<int32_t> masked_ids;
  int next_sentence = -1;        ///< 0 = really follows, 1 = random, -1 = not said
  std::vector<int32_t> labels;   ///< tasks: a class, a class per token (-1: none), or first and last token
  std::vector<float> targets;    ///< tasks: a value per output
  std::vector<Example> choices;  ///< tasks: one of these is right
};

/// Examples by number. get() is const, thread-safe and O(1) or nearly so; no state but the files behind it.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;
  virtual Example get(int64_t index) const = 0;  ///< 0 <= index < size()
  /// Tokens of an example; of its longest choice.
  virtual int64_t length(int64_t index) const;
  /// What who starts a run should know of the data, a line; "": nothing.
  virtual std::string note() const { return {}; }
};
using DatasetPtr = std::shared_ptr<const Dataset>;

inline int64_t Dataset::length(int64_t index) const {
  const Example example = get(index);
  size_t longest = example.tokens.size();
  for (const Example& choice : example.choices) longest = std::max(longest, choice.tokens.size());
  return static_cast<int64_t>(longest);
}

}  // namespace tessera
