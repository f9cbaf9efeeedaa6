#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace tessera {

/// How documents are cut into sentences, for next-sentence prediction; the tokens of the text do not depend
/// on it.
enum class SentenceRule {
  lines,       ///< each line is one
  paragraphs,  ///< each line is a paragraph, cut after sentence ends
  wrapped,     ///< as paragraphs, but only blank lines and list items end a paragraph
  none,        ///< the document is one
};

/// Byte offsets at which the sentences of `text` start, ascending, the first is 0. White space between two
/// sentences goes to the second (where byte-level BPE wants it). A sentence ends after . ! ? (and closing
/// quotes and brackets), white space and something that can begin one, unless an abbreviation or an initial
/// comes before; CJK full stops need no space.
std::vector<uint32_t> sentence_starts(std::string_view text, SentenceRule rule);

}  // namespace tessera
