#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera {

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<std::pair<int64_t, int64_t>>
      offsets;  ///< [begin, end) in the input, in Unicode code points; as the wheel's
};

/// The special tokens that objectives need; -1 where the tokenizer has none.
struct SpecialTokens {
  int32_t pad = -1, unknown = -1, cls = -1, sep = -1, mask = -1, begin = -1, end = -1;
};

/// Text to token ids and back. Thread-safe: all calls are const. Reads and writes Hugging Face's
/// tokenizer.json. Invalid UTF-8 becomes U+FFFD, one per maximal ill-formed subsequence (Unicode 15, table
/// 3-8).
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Reads tokenizer.json text. Errors: Error naming `origin` and the key at fault.
  static std::shared_ptr<const Tokenizer> parse(std::string_view json, const std::string& origin);
  /// Reads a tokenizer.json file, or a folder that holds one.
  static std::shared_ptr<const Tokenizer> load(const std::string& path);

  /// Appends the ids of `text`, without special tokens: the fast path, no allocation beyond `ids`.
  virtual void encode(std::string_view text, std::vector<int32_t>& ids) const = 0;
  /// Ids and offsets, without special tokens. Added tokens in the text ("[MASK]", "<|endoftext|>") are
  /// recognised by both encode and encode_with_offsets, as the wheel does.
  virtual Encoding encode_with_offsets(std::string_view text) const = 0;
  /// The text of the ids, as the wheel's decode(ids, skip_special_tokens=…).
  virtual std::string decode(const std::vector<int32_t>& ids, bool skip_special = true) const = 0;

  virtual int32_t vocab_size() const = 0;                   ///< added tokens included: 1 + the largest id
  virtual int32_t id_of(std::string_view token) const = 0;  ///< -1 where there is none
  virtual std::string token_of(int32_t id) const = 0;       ///< "" where there is none
  virtual bool continues_word(int32_t id) const = 0;  ///< "##…" (WordPiece) or no leading space (byte-level)
  virtual const SpecialTokens& special() const = 0;
  virtual std::string json() const = 0;  ///< tokenizer.json, as the wheel writes it

  std::vector<int32_t> encode(std::string_view text) const {
    std::vector<int32_t> ids;
    encode(text, ids);
    return ids;
  }
};
using TokenizerPtr = std::shared_ptr<const Tokenizer>;

}  // namespace tessera
