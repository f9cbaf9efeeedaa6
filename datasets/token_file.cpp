#include "datasets/token_file.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "datasets/hdf5.h"
#include "datasets/token_format.h"
#include "recipes/error.h"

namespace tessera {
namespace {

using hdf5::Type;

TokenFileHeader read_header(const hdf5::File& file) {
  TokenFileHeader header;
  const auto integer = [&](const char* name) { return file.integer_attribute("/", name); };
  header.vocab_size = static_cast<int32_t>(integer("vocab_size"));
  header.num_documents = integer("num_documents");
  header.num_sentences = integer("num_sentences");
  header.num_tokens = integer("num_tokens");
  header.unigram_entropy = file.real_attribute("/", "unigram_entropy");
  for (const auto& [name, member] : token_format::special_names) {
    header.special.*member = static_cast<int32_t>(integer(name));
  }
  return header;
}

/// Elements [begin, end) of an array of T, which may lie at any address, as int32.
template <class T>
void widen(const std::byte* array, uint64_t begin, uint64_t end, int32_t* to) {
  for (uint64_t i = begin; i < end; ++i) {
    T value;
    std::memcpy(&value, array + i * sizeof(T), sizeof(T));
    to[i - begin] = static_cast<int32_t>(value);
  }
}

}  // namespace

bool TokenFile::recognise(const hdf5::File& file) {
  return file.has_attribute("/", "format") && file.text_attribute("/", "format") == token_format::name;
}

TokenFile::TokenFile(const std::string& path, Verify verify) : path_(path), file_(path) {
  const auto file = hdf5::File::open(path);
  if (!recognise(file)) {
    throw Error(
        fmt::format("{}: is an HDF5 file but not a token file; make one with: tessera prepare", path));
  }
  const int64_t version = file.integer_attribute("/", "format_version");
  if (version != token_format::version) {
    throw Error(
        fmt::format("{}: has format version {}; this program reads version {}: prepare the data again", path,
                    version, token_format::version));
  }
  header_ = read_header(file);
  locate();
  check_offsets();
  const bool small = file_.size() <= token_format::always_verified;
  if (verify == Verify::always || (verify == Verify::small && small)) check_hash();
}

/// Finds the three arrays in the mapped file.
void TokenFile::locate() {
  const auto file = hdf5::File::open(path_);
  const auto place = [&](const char* name, int64_t length, std::initializer_list<Type> types) {
    const hdf5::DatasetInfo info = file.info(name);
    if (std::find(types.begin(), types.end(), info.type) == types.end() ||
        info.shape != std::vector<int64_t>{length}) {
      damaged(fmt::format("{} does not fit the counts in the head", name));
    }
    const auto bytes = static_cast<uint64_t>(length) * hdf5::size_of(info.type);
    if (info.file_offset < 0 || info.file_offset + bytes > file_.size())
      damaged(fmt::format("{} is cut off", name));
    wide_ = info.type == Type::u32;
    return file_.data() + info.file_offset;
  };
  const auto offsets = [&](const char* name, int64_t count) {
    const std::byte* stored = place(name, count + 1, {Type::u64});
    const auto length = static_cast<size_t>(count + 1);
    if (reinterpret_cast<uintptr_t>(stored) % alignof(uint64_t) == 0) {
      return std::span(reinterpret_cast<const uint64_t*>(stored), length);
    }
    auto& copy = unaligned_.emplace_back(length);  // small, or written by another program
    std::memcpy(copy.data(), stored, length * sizeof(uint64_t));
    return std::span<const uint64_t>(copy);
  };
  documents_ = offsets("/documents", header_.num_documents);
  sentences_ = offsets("/sentences", header_.num_sentences);
  tokens_ = place("/tokens", header_.num_tokens, {Type::u16, Type::u32});
}

void TokenFile::check_offsets() const {
  for (const auto& offsets : {documents_, sentences_}) {
    if (offsets.front() != 0 || offsets.back() != static_cast<uint64_t>(header_.num_tokens)) {
      damaged("the offsets do not cover the tokens");
    }
  }
}

void TokenFile::check_hash() const {
  const auto bytes = [](auto span) { return XXH3_64bits(span.data(), span.size_bytes()); };
  const uint64_t tokens = XXH3_64bits(tokens_, header_.num_tokens * (wide_ ? 4 : 2));
  const auto found =
      token_format::content_hash({tokens, bytes(documents_), bytes(sentences_)}, tokenizer_json(), header_);
  if (found != hdf5::File::open(path_).text_attribute("/", "content_hash"))
    damaged("its content does not match its hash");
}

void TokenFile::damaged(const std::string& what) const {
  throw Error(fmt::format("{}: damaged token file: {}; prepare the data again", path_, what));
}

std::string TokenFile::tokenizer_json() const { return hdf5::File::open(path_).read_text("/tokenizer"); }

int64_t TokenFile::first_sentence(int64_t document) const {
  return std::lower_bound(sentences_.begin(), sentences_.end(), documents_[document]) - sentences_.begin();
}

void TokenFile::read(uint64_t begin, uint64_t end, std::vector<int32_t>& tokens) const {
  if (begin > end || end > static_cast<uint64_t>(header_.num_tokens)) damaged("an offset lies past the end");
  const size_t old = tokens.size();
  tokens.resize(old + (end - begin));
  if (wide_) {
    widen<uint32_t>(tokens_, begin, end, tokens.data() + old);
  } else {
    widen<uint16_t>(tokens_, begin, end, tokens.data() + old);
  }
  // Files too large to be hashed at every start are guarded here: such an id would read past the embedding.
  for (size_t i = old; i < tokens.size(); ++i) {
    if (static_cast<uint32_t>(tokens[i]) >= static_cast<uint32_t>(header_.vocab_size)) {
      damaged(fmt::format("token {} is {}, the vocabulary has {}", begin + i - old, tokens[i],
                          header_.vocab_size));
    }
  }
}

}  // namespace tessera
