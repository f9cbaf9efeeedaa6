#pragma once
#include <fmt/format.h>
#include <xxhash.h>

#include <array>
#include <cstdint>
#include <string>
#include <utility>

#include "datasets/token_file.h"

/// Names and sums of the token file format that its reader and its writer share (docs/data.md).
namespace tessera::token_format {

inline constexpr const char* name = "tessera tokens";
inline constexpr int64_t version = 1;
inline constexpr size_t always_verified = size_t{256} << 20;  ///< bytes of file

inline constexpr std::array<std::pair<const char*, int32_t SpecialTokens::*>, 7> special_names{
    {{"token_pad", &SpecialTokens::pad},
     {"token_unknown", &SpecialTokens::unknown},
     {"token_cls", &SpecialTokens::cls},
     {"token_sep", &SpecialTokens::sep},
     {"token_mask", &SpecialTokens::mask},
     {"token_begin", &SpecialTokens::begin},
     {"token_end", &SpecialTokens::end}}};

/// XXH3 of the sums of the three arrays (tokens, documents, sentences), of the tokenizer's text and of what
/// the head says, in hexadecimal digits.
inline std::string content_hash(const std::array<uint64_t, 3>& sums, const std::string& tokenizer,
                                const TokenFileHeader& header) {
  std::string all =
      fmt::format("{:x} {:x} {:x} {:x} {} {} {} {} {:a}", sums[0], sums[1], sums[2],
                  XXH3_64bits(tokenizer.data(), tokenizer.size()), header.vocab_size, header.num_documents,
                  header.num_sentences, header.num_tokens, header.unigram_entropy);
  for (const auto& [text, member] : special_names) all += fmt::format(" {}", header.special.*member);
  return fmt::format("{:016x}", XXH3_64bits(all.data(), all.size()));
}

}  // namespace tessera::token_format
