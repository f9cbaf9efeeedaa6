#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "datasets/tokenizer.h"

namespace tessera {

struct TrainerOptions {
  enum class Kind { wordpiece, byte_level_bpe };
  Kind kind = Kind::wordpiece;
  int64_t vocab_size = 30522;     ///< special tokens and alphabet included
  int64_t min_frequency = 2;      ///< a pair must occur so often to be merged
  bool lowercase = true;          ///< WordPiece: lowercase and strip accents
  int64_t limit_alphabet = 1000;  ///< WordPiece: the most frequent characters kept, as in the wheel
  /// First ids, in this order. Empty: [PAD] [UNK] [CLS] [SEP] [MASK], or <|endoftext|>.
  std::vector<std::string> special_tokens;
};

/// "wordpiece" or "byte_level_bpe"; an Error names them where `name` is neither.
TrainerOptions::Kind trainer_kind(std::string_view name);

/// Counts the words of texts, normalised and split as the tokenizer to be trained will do: constant memory
/// but for the different words. Use one per thread and merge them.
class WordCounter {
 public:
  explicit WordCounter(const TrainerOptions& options);
  WordCounter(WordCounter&&) noexcept;
  WordCounter& operator=(WordCounter&&) noexcept;
  ~WordCounter();

  void add(std::string_view text);  ///< any length; ill-formed UTF-8 as in Tokenizer
  void merge(WordCounter&& other);
  int64_t num_words() const;  ///< different ones

 private:
  friend TokenizerPtr train(const TrainerOptions& options, const WordCounter& words);
  struct State;
  std::unique_ptr<State> state_;
};

/// Learns a vocabulary as the wheel's WordPieceTrainer or BpeTrainer does: merges the most frequent pair, of
/// equally frequent ones that of lower ids. The result does not depend on the order in which texts were
/// counted. Errors: no text, a vocab_size too small for special tokens and alphabet, special tokens without
/// "[UNK]" (WordPiece).
TokenizerPtr train(const TrainerOptions& options, const WordCounter& words);

}  // namespace tessera
