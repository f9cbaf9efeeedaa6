#include <fmt/format.h>

#include <algorithm>
#include <queue>

#include "datasets/tokenizer/base.h"
#include "datasets/tokenizer/gpt2_text.h"
#include "datasets/tokenizer/merge_table.h"
#include "datasets/tokenizer/word_cache.h"
#include "recipes/error.h"

namespace tessera {
namespace {

using Json = TokenizerSpec::Json;

class ByteLevelBpe final : public TokenizerBase {
 public:
  explicit ByteLevelBpe(TokenizerSpec spec);

  bool continues_word(int32_t id) const override {
    return !added(id) && vocabulary_.has(id) && !vocabulary_.token(id).starts_with("\u0120");
  }

 protected:
  std::string normalize(std::string_view text) const override { return std::string(text); }
  void encode_piece(std::string_view piece, std::vector<int32_t>& ids) const override;
  void encode_piece(std::string_view piece, const Position& position, Encoding& encoding) const override;
  std::string join(const std::vector<std::string_view>& tokens) const override;
  std::vector<std::pair<std::string, std::string>> merges() const override;

 private:
  struct Symbol {
    int32_t id;
    uint32_t length;  // bytes
  };
  void read_model();
  void read_bytes(bool fuse_unknown, int32_t unknown);
  void read_merges();
  void read_offsets();
  size_t next_word(std::string_view text) const { return use_regex_ ? text_.next_word(text) : text.size(); }
  /// The text with the space that add_prefix_space puts before it, kept in `storage` if needed.
  std::string_view prefixed(std::string_view text, std::string& storage) const;
  void encode_words(std::string_view text, std::vector<int32_t>& ids) const;
  void encode_words(std::string_view text, const Position& position, Encoding& encoding) const;
  void split_word(std::string_view word, std::vector<Symbol>& symbols) const;
  void split_bytes(std::string_view word, std::vector<Symbol>& symbols) const;
  void merge_short(std::vector<Symbol>& symbols) const;
  void merge_long(std::vector<Symbol>& symbols) const;

  Gpt2Text text_;
  bool use_regex_ = true, add_prefix_space_ = false, ignore_merges_ = false, fuse_unknown_ = false;
  bool has_decoder_ = true;
  int32_t unknown_ = -1;
  std::array<int32_t, 256> byte_ids_{};  // -1: the vocabulary lacks the byte
  StringMap words_;                      // bytes -> id, for ignore_merges
  MergeTable merge_table_;
  std::vector<std::pair<int32_t, int32_t>> merge_order_;
};

ByteLevelBpe::ByteLevelBpe(TokenizerSpec spec) : TokenizerBase(std::move(spec)) {
  if (!type_of(spec_, "normalizer", {}).empty()) return;  // type_of throws: none is supported
  if (type_of(spec_, "pre_tokenizer", {"ByteLevel"}).empty()) {
    throw Error(where("pre_tokenizer") + ": missing; valid: ByteLevel");
  }
  const Json& pre = spec_.sections["pre_tokenizer"];
  add_prefix_space_ = bool_of(pre, "add_prefix_space", true, where("pre_tokenizer"));
  use_regex_ = bool_of(pre, "use_regex", true, where("pre_tokenizer"));
  has_decoder_ = !type_of(spec_, "decoder", {"ByteLevel"}).empty();
  read_offsets();
  read_model();
  read_merges();
  finish();
}

void ByteLevelBpe::read_offsets() {
  const std::string type = type_of(
      spec_, "post_processor", {"ByteLevel", "RobertaProcessing", "TemplateProcessing", "BertProcessing"});
  if (type != "ByteLevel" && type != "RobertaProcessing") return;
  const Json& section = spec_.sections["post_processor"];
  trim_offsets_ = bool_of(section, "trim_offsets", true, where("post_processor"));
  trim_keeps_prefix_ = bool_of(section, "add_prefix_space", true, where("post_processor"));
}

void ByteLevelBpe::read_model() {
  const std::string at = where("model");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!text_of(spec_.model, key, "", at).empty()) {
      throw Error(fmt::format("{}.{}: only byte-level BPE without it is supported", at, key));
    }
  }
  if (const auto dropout = spec_.model.find("dropout"); dropout != spec_.model.end() && !dropout->is_null()) {
    if (!dropout->is_number() || dropout->get<double>() != 0)
      throw Error(at + ".dropout: not supported; valid: null, 0");
  }
  if (bool_of(spec_.model, "byte_fallback", false, at))
    throw Error(at + ".byte_fallback: not supported; valid: false");
  fuse_unknown_ = bool_of(spec_.model, "fuse_unk", false, at);
  ignore_merges_ = bool_of(spec_.model, "ignore_merges", false, at);
  const std::string unknown = text_of(spec_.model, "unk_token", "", at);
  if (!unknown.empty()) {
    unknown_ = vocabulary_.find(unknown);
    if (unknown_ < 0) throw Error(fmt::format("{}.unk_token: '{}' is not in the vocabulary", at, unknown));
  }
  const auto kept = [&](const char* key) { return spec_.model.contains(key) ? spec_.model[key] : Json(); };
  spec_.model = {{"type", "BPE"},
                 {"dropout", kept("dropout")},
                 {"unk_token", kept("unk_token")},
                 {"continuing_subword_prefix", kept("continuing_subword_prefix")},
                 {"end_of_word_suffix", kept("end_of_word_suffix")},
                 {"fuse_unk", fuse_unknown_},
                 {"byte_fallback", false},
                 {"ignore_merges", ignore_merges_}};
  for (int byte = 0; byte < 256; ++byte) {
    const char b = static_cast<char>(byte);
    byte_ids_[byte] = vocabulary_.find(to_byte_level({&b, 1}));
  }
  if (!ignore_merges_) return;
  std::string bytes;
  for (int32_t id = 0; id < vocabulary_.end_id(); ++id) {
    if (vocabulary_.has(id) && from_byte_level(vocabulary_.token(id), bytes))
      words_.value(words_.insert(bytes)) = id;
  }
}

void ByteLevelBpe::read_merges() {
  const std::string at = where("model.merges");
  merge_table_.reserve(spec_.merges.size());
  merge_order_.reserve(spec_.merges.size());
  for (size_t rank = 0; rank < spec_.merges.size(); ++rank) {
    const std::string &a = spec_.merges[rank].first, &b = spec_.merges[rank].second;
    const auto id_of_part = [&](const std::string& token) {
      const int32_t id = vocabulary_.find(token);
      if (id < 0)
        throw Error(fmt::format("{}[{}]: '{}' + '{}': the token '{}' is not in the vocabulary", at, rank, a,
                                b, token));
      return id;
    };
    const int32_t left = id_of_part(a), right = id_of_part(b);
    merge_table_.set(left, right, static_cast<int32_t>(rank), id_of_part(a + b));
    merge_order_.emplace_back(left, right);
  }
  spec_.merges = {};
}

std::vector<std::pair<std::string, std::string>> ByteLevelBpe::merges() const {
  std::vector<std::pair<std::string, std::string>> result;
  result.reserve(merge_order_.size());
  for (size_t rank = 0; rank < merge_order_.size(); ++rank) {
    const auto& [a, b] = merge_order_[rank];
    if (merge_table_.find(a, b).rank != static_cast<int32_t>(rank)) continue;  // the pair came again later
    result.emplace_back(vocabulary_.token(a), vocabulary_.token(b));
  }
  return result;
}

std::string_view ByteLevelBpe::prefixed(std::string_view text, std::string& storage) const {
  if (!add_prefix_space_ || text.starts_with(' ')) return text;
  storage.assign(1, ' ').append(text);
  return storage;
}

void ByteLevelBpe::encode_piece(std::string_view piece, std::vector<int32_t>& ids) const {
  if (normal_finder_.empty()) return encode_words(piece, ids);
  std::vector<Segment> segments;
  normal_finder_.split(piece, segments);
  for (const Segment& segment : segments) {
    if (segment.token) {
      ids.push_back(segment.token->id);
    } else {
      encode_words(piece.substr(segment.begin, segment.end - segment.begin), ids);
    }
  }
}

void ByteLevelBpe::encode_words(std::string_view text, std::vector<int32_t>& ids) const {
  thread_local std::string storage;
  thread_local std::vector<Symbol> symbols;
  text = prefixed(text, storage);
  WordCache& cache = WordCache::of_thread(number_);
  while (!text.empty()) {
    const size_t length = next_word(text);
    const std::string_view word = text.substr(0, length);
    const bool short_word = length <= WordCache::max_length;
    const WordCache::Key key = short_word ? WordCache::key(word, text.size()) : WordCache::Key{};
    WordCache::Entry& entry = cache.entry(key);
    text.remove_prefix(length);
    if (short_word && entry.holds(key)) {
      ids.insert(ids.end(), entry.ids.begin(), entry.ids.begin() + entry.count);
      continue;
    }
    split_word(word, symbols);
    const size_t old = ids.size();
    for (const Symbol& symbol : symbols) ids.push_back(symbol.id);
    if (short_word && symbols.size() <= WordCache::max_ids) entry.fill(key, ids.data() + old, symbols.size());
  }
}

void ByteLevelBpe::encode_piece(std::string_view piece, const Position& position, Encoding& encoding) const {
  std::vector<Segment> segments;
  normal_finder_.split(piece, segments);
  for (const Segment& segment : segments) {
    const std::string_view part = piece.substr(segment.begin, segment.end - segment.begin);
    const Position at{position.character, position.begin + segment.begin};
    if (segment.token) {
      emit(segment, part, at.character[at.begin], at.character[at.begin + part.size() - 1] + 1, encoding);
    } else {
      encode_words(part, at, encoding);
    }
  }
}

void ByteLevelBpe::encode_words(std::string_view part, const Position& position, Encoding& encoding) const {
  std::string storage;
  std::vector<Symbol> symbols;
  std::string_view text = prefixed(part, storage);
  const size_t extra = text.size() - part.size();
  const auto character = [&](size_t byte) {
    return position.character[position.begin + byte - std::min(byte, extra)];
  };
  for (size_t begin = 0; begin < text.size();) {
    const size_t length = next_word(text.substr(begin));
    split_word(text.substr(begin, length), symbols);
    size_t from = begin;
    for (const Symbol& symbol : symbols) {
      const std::string_view bytes = text.substr(from, symbol.length);
      const size_t leading = std::min(bytes.find_first_not_of(' '), bytes.size());
      const size_t trailing = bytes.size() - 1 - std::min(bytes.find_last_not_of(' '), bytes.size() - 1);
      emit(symbol.id, {character(from), character(from + symbol.length - 1) + 1},
           static_cast<int64_t>(leading), static_cast<int64_t>(leading == bytes.size() ? leading : trailing),
           encoding);
      from += symbol.length;
    }
    begin += length;
  }
}

void ByteLevelBpe::split_bytes(std::string_view word, std::vector<Symbol>& symbols) const {
  symbols.clear();
  bool after_unknown = false;
  for (const char b : word) {
    const int32_t id = byte_ids_[static_cast<unsigned char>(b)];
    const bool is_unknown = id < 0;
    if (is_unknown && after_unknown && fuse_unknown_) {
      ++symbols.back().length;
    } else if (!is_unknown || unknown_ >= 0) {
      symbols.push_back({is_unknown ? unknown_ : id, 1});
    }
    after_unknown = is_unknown && unknown_ >= 0;
  }
}

void ByteLevelBpe::split_word(std::string_view word, std::vector<Symbol>& symbols) const {
  if (ignore_merges_) {
    const size_t number = words_.find(word);
    if (number != StringMap::none) {
      symbols.assign(1, {static_cast<int32_t>(words_.value(number)), static_cast<uint32_t>(word.size())});
      return;
    }
  }
  split_bytes(word, symbols);
  if (symbols.size() <= 48) {
    merge_short(symbols);
  } else {
    merge_long(symbols);
  }
}

/// Merges the pair of lowest rank, leftmost first, until none is left: by linear search.
void ByteLevelBpe::merge_short(std::vector<Symbol>& symbols) const {
  MergeTable::Merge merges[48];
  size_t size = symbols.size();
  for (size_t i = 0; i + 1 < size; ++i) merges[i] = merge_table_.find(symbols[i].id, symbols[i + 1].id);
  while (size > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < size; ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == MergeTable::no_rank) break;
    symbols[best] = {merges[best].id, symbols[best].length + symbols[best + 1].length};
    std::copy(symbols.begin() + best + 2, symbols.begin() + size, symbols.begin() + best + 1);
    std::copy(merges + best + 1, merges + size - 1, merges + best);
    --size;
    if (best > 0) merges[best - 1] = merge_table_.find(symbols[best - 1].id, symbols[best].id);
    if (best + 1 < size) merges[best] = merge_table_.find(symbols[best].id, symbols[best + 1].id);
  }
  symbols.resize(size);
}

/// The same with a heap, for runs of letters without spaces and the like: n log n.
void ByteLevelBpe::merge_long(std::vector<Symbol>& symbols) const {
  struct Candidate {
    int32_t rank;
    uint32_t position;
    int32_t left, right, id;
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : position > other.position;
    }
  };
  const auto size = static_cast<uint32_t>(symbols.size());
  std::vector<uint32_t> previous(size), next(size);  // size: none
  std::priority_queue<Candidate> queue;
  const auto consider = [&](uint32_t i) {
    if (i >= size || next[i] >= size) return;
    const MergeTable::Merge merge = merge_table_.find(symbols[i].id, symbols[next[i]].id);
    if (merge.rank != MergeTable::no_rank)
      queue.push({merge.rank, i, symbols[i].id, symbols[next[i]].id, merge.id});
  };
  for (uint32_t i = 0; i < size; ++i) {
    previous[i] = i == 0 ? size : i - 1;
    next[i] = i + 1;
  }
  for (uint32_t i = 0; i < size; ++i) consider(i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    const uint32_t i = top.position, right = next[i];
    const bool current =
        symbols[i].length > 0 && symbols[i].id == top.left && right < size && symbols[right].id == top.right;
    if (!current) continue;
    symbols[i] = {top.id, symbols[i].length + symbols[right].length};
    symbols[right].length = 0;
    next[i] = next[right];
    if (next[i] < size) previous[next[i]] = i;
    consider(previous[i]);
    consider(i);
  }
  std::erase_if(symbols, [](const Symbol& symbol) { return symbol.length == 0; });
}

std::string ByteLevelBpe::join(const std::vector<std::string_view>& tokens) const {
  std::string bytes, part;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!has_decoder_) {
      if (i > 0) bytes += ' ';
      bytes += tokens[i];
    } else {
      bytes += from_byte_level(tokens[i], part) ? std::string_view(part) : tokens[i];
    }
  }
  return unicode::repaired(bytes);
}

}  // namespace

TokenizerPtr make_byte_level(TokenizerSpec spec) { return std::make_shared<ByteLevelBpe>(std::move(spec)); }

}  // namespace tessera
