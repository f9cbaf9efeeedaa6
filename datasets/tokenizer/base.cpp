#include "datasets/tokenizer/base.h"

#include <fmt/format.h>

#include <algorithm>

#include "datasets/tokenizer/unicode.h"
#include "recipes/error.h"

namespace tessera {
namespace {

/// Ids index tables, so a hostile file must not make them huge; real vocabularies have no holes to speak of.
int64_t largest_id(size_t num_tokens) {
  return std::max<int64_t>(1 << 20, 4 * static_cast<int64_t>(num_tokens));
}

std::vector<int32_t> character_of_byte(std::string_view text) {
  std::vector<int32_t> result(text.size());
  int32_t character = -1;
  for (size_t i = 0; i < text.size(); ++i) result[i] = character += unicode::starts_character(text[i]);
  return result;
}

/// White space (byte-level's space included) at both ends of a token's text, in characters.
std::pair<int64_t, int64_t> space_around(std::string_view text) {
  std::vector<bool> space;
  for (const char* p = text.data(); p < text.data() + text.size();) {
    const char32_t c = unicode::next(p);
    space.push_back(c == 0x120 || unicode::is_whitespace(c));
  }
  const auto leading = std::find(space.begin(), space.end(), false) - space.begin();
  const auto trailing = std::find(space.rbegin(), space.rend(), false) - space.rbegin();
  return {leading, trailing};
}

}  // namespace

std::string replace_all(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

uint64_t TokenizerBase::next_number() {
  static std::atomic<uint64_t> last = 0;
  return ++last;
}

TokenizerBase::TokenizerBase(TokenizerSpec spec) : spec_(std::move(spec)) {
  const int64_t limit = largest_id(spec_.vocab.size());
  for (const auto& [token, id] : spec_.vocab) {
    if (id < 0 || id > limit) {
      throw Error(fmt::format("{}: the id {} of token '{}' is out of range; valid: 0 to {}",
                              where("model.vocab"), id, token, limit));
    }
    if (!vocabulary_.add(token, static_cast<int32_t>(id))) {
      const std::string_view other = vocabulary_.token(static_cast<int32_t>(id));
      throw Error(vocabulary_.find(token) >= 0
                      ? fmt::format("{}: the token '{}' occurs twice", where("model.vocab"), token)
                      : fmt::format("{}: the tokens '{}' and '{}' have the same id {}", where("model.vocab"),
                                    other, token, id));
    }
  }
  spec_.vocab = {};
  if (vocabulary_.size() == 0) throw Error(where("model.vocab") + ": missing or empty");
}

void TokenizerBase::finish() {
  resolve_added_tokens();
  special_.pad = first_of({"[PAD]", "<pad>"});
  special_.unknown = first_of({"[UNK]", "<unk>"});
  special_.cls = first_of({"[CLS]", "<s>"});
  special_.sep = first_of({"[SEP]", "</s>"});
  special_.mask = first_of({"[MASK]", "<mask>"});
  special_.begin = first_of({"<|endoftext|>", "<s>", "<bos>", "[BOS]"});
  special_.end = first_of({"<|endoftext|>", "</s>", "<eos>", "[EOS]"});
}

int32_t TokenizerBase::first_of(std::initializer_list<const char*> names) const {
  for (const char* name : names) {
    if (const int32_t id = id_of(name); id >= 0) return id;
  }
  return -1;
}

/// The wheel numbers the added tokens itself: the model's id where it knows the token, else the next free
/// one.
void TokenizerBase::resolve_added_tokens() {
  int64_t next = static_cast<int64_t>(vocabulary_.size());
  end_id_ = vocabulary_.end_id();
  for (AddedToken& token : spec_.added_tokens) {
    const int32_t known = vocabulary_.find(token.content);
    const int64_t id = known >= 0 ? known : next++;
    if (token.id != id) {
      throw Error(fmt::format("{}: '{}' has id {}, but {}", where("added_tokens"), token.content, token.id,
                              known >= 0 ? fmt::format("the model's vocabulary says {}", id)
                                         : fmt::format("the next free id is {}", id)));
    }
    if (known < 0 && vocabulary_.has(token.id)) {
      throw Error(fmt::format("{}: the id {} of '{}' belongs to '{}'", where("added_tokens"), id,
                              token.content, vocabulary_.token(token.id)));
    }
    if (added_by_content_.find(token.content) != StringMap::none) {
      throw Error(fmt::format("{}: '{}' occurs twice", where("added_tokens"), token.content));
    }
    token.normal = token.normalized ? normalize(token.content) : token.content;
    if (token.normal.empty())
      throw Error(
          fmt::format("{}: nothing is left of '{}' when normalised", where("added_tokens"), token.content));
    added_by_content_.value(added_by_content_.insert(token.content)) = id;
    end_id_ = std::max(end_id_, token.id + 1);
    if (token.special) special_texts_.insert(token.content);
  }
  added_by_id_.assign(end_id_, -1);
  for (size_t i = 0; i < spec_.added_tokens.size(); ++i) {
    const AddedToken& token = spec_.added_tokens[i];
    added_by_id_[token.id] = static_cast<int32_t>(i);
    (token.normalized ? normal_finder_ : raw_finder_).add(&token);
  }
}

const AddedToken* TokenizerBase::added(int32_t id) const {
  if (id < 0 || id >= end_id_ || added_by_id_[id] < 0) return nullptr;
  return &spec_.added_tokens[added_by_id_[id]];
}

int32_t TokenizerBase::id_of(std::string_view token) const {
  const size_t number = added_by_content_.find(token);
  return number != StringMap::none ? static_cast<int32_t>(added_by_content_.value(number))
                                   : vocabulary_.find(token);
}

std::string TokenizerBase::token_of(int32_t id) const {
  const AddedToken* token = added(id);
  return token ? token->content : std::string(vocabulary_.token(id));
}

void TokenizerBase::encode(std::string_view text, std::vector<int32_t>& ids) const {
  std::string mended;
  if (!unicode::is_valid(text)) text = mended = unicode::repaired(text);
  if (raw_finder_.empty()) return encode_piece(text, ids);
  thread_local std::vector<Segment> segments;
  raw_finder_.split(text, segments);
  for (const Segment& segment : segments) {
    if (segment.token) {
      ids.push_back(segment.token->id);
    } else {
      encode_piece(text.substr(segment.begin, segment.end - segment.begin), ids);
    }
  }
}

Encoding TokenizerBase::encode_with_offsets(std::string_view text) const {
  std::string mended;
  if (!unicode::is_valid(text)) text = mended = unicode::repaired(text);
  const std::vector<int32_t> character = character_of_byte(text);
  Encoding encoding;
  std::vector<Segment> segments;
  raw_finder_.split(text, segments);
  for (const Segment& segment : segments) {
    const std::string_view piece = text.substr(segment.begin, segment.end - segment.begin);
    if (segment.token) {
      emit(segment, piece, character[segment.begin], character[segment.end - 1] + 1, encoding);
    } else {
      encode_piece(piece, Position{character, segment.begin}, encoding);
    }
  }
  return encoding;
}

void TokenizerBase::emit(const Segment& segment, std::string_view text, int32_t begin, int32_t end,
                         Encoding& encoding) const {
  const auto [leading, trailing] = trim_offsets_ ? space_around(text) : std::pair<int64_t, int64_t>{0, 0};
  emit(segment.token->id, {begin, end}, leading, trailing, encoding);
}

void TokenizerBase::emit(int32_t id, std::pair<int64_t, int64_t> offsets, int64_t leading, int64_t trailing,
                         Encoding& encoding) const {
  if (trim_offsets_) {
    const bool first = encoding.ids.empty() || offsets.first == 0;
    if (first && trim_keeps_prefix_ && leading == 1) leading = 0;  // the space was added, not the text's
    offsets.first = std::min(offsets.first + leading, offsets.second);
    if (offsets.second >= trailing) offsets.second = std::max(offsets.second - trailing, offsets.first);
  }
  encoding.ids.push_back(id);
  encoding.offsets.push_back(offsets);
}

std::string TokenizerBase::decode(const std::vector<int32_t>& ids, bool skip_special) const {
  std::vector<std::string_view> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    const AddedToken* token = added(id);
    if (!token && !vocabulary_.has(id)) continue;
    const std::string_view text = token ? std::string_view(token->normal) : vocabulary_.token(id);
    if (!skip_special || special_texts_.find(text) == StringMap::none) tokens.push_back(text);
  }
  return join(tokens);
}

std::string TokenizerBase::json() const {
  TokenizerSpec spec = spec_;
  for (int32_t id = 0; id < vocabulary_.end_id(); ++id) {
    if (vocabulary_.has(id)) spec.vocab.emplace_back(vocabulary_.token(id), id);
  }
  std::sort(spec.added_tokens.begin(), spec.added_tokens.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  spec.merges = merges();
  return write_spec(spec);
}

TokenizerPtr make_tokenizer(TokenizerSpec spec) {
  const std::string type = type_of(spec, "model", {"WordPiece", "BPE"});
  if (type == "WordPiece") return make_wordpiece(std::move(spec));
  return make_byte_level(std::move(spec));
}

}  // namespace tessera
