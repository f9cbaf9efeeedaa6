#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "datasets/hdf5.h"
#include "datasets/token_file.h"
#include "datasets/token_format.h"
#include "recipes/error.h"

namespace tessera {
namespace {

constexpr size_t buffer_bytes = size_t{4} << 20;

[[noreturn]] void cannot_write(const std::string& path) {
  throw Error(fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
}

}  // namespace

/// A file of values whose number is known only at the end: HDF5's contiguous datasets need it at the start.
struct TokenFileWriter::Spool {
  explicit Spool(std::string where) : path(std::move(where)), file(path, std::ios::binary | std::ios::trunc) {
    if (!file) cannot_write(path);
    XXH3_64bits_reset(sum.get());
  }
  void append(const void* data, size_t bytes) {
    XXH3_64bits_update(sum.get(), data, bytes);
    file.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
    if (!file) cannot_write(path);
    size += bytes;
  }
  void append(uint64_t value) { append(&value, sizeof value); }
  uint64_t hash() const { return XXH3_64bits_digest(sum.get()); }

  /// Moves everything into a dataset of the HDF5 file.
  void copy_into(hdf5::File& target, const std::string& name, hdf5::Type type) {
    file.close();
    if (!file) cannot_write(path);
    const auto width = static_cast<int64_t>(hdf5::size_of(type));
    target.reserve(name, type, {static_cast<int64_t>(size) / width});
    std::ifstream source(path, std::ios::binary);
    std::vector<char> buffer(buffer_bytes);
    for (int64_t done = 0; done < static_cast<int64_t>(size);) {
      source.read(buffer.data(), static_cast<std::streamsize>(buffer.size()));
      if (source.gcount() <= 0) throw Error(fmt::format("{}: cannot be read back", path));
      target.write_slice(name, {done / width}, {source.gcount() / width}, buffer.data());
      done += source.gcount();
    }
    std::filesystem::remove(path);
  }

  std::string path;
  std::ofstream file;
  uint64_t size = 0;
  std::unique_ptr<XXH3_state_t, XXH_errorcode (*)(XXH3_state_t*)> sum{XXH3_createState(), XXH3_freeState};
};

TokenFileWriter::TokenFileWriter(const std::string& folder, const std::string& name,
                                 const Tokenizer& tokenizer)
    : path_(folder + "/" + name + ".h5"),
      tokenizer_json_(tokenizer.json()),
      wide_(tokenizer.vocab_size() > 65536),
      counts_(tokenizer.vocab_size(), 0) {
  header_.vocab_size = tokenizer.vocab_size();
  header_.special = tokenizer.special();
  tokens_ = std::make_unique<Spool>(folder + "/" + name + ".tokens");
  documents_ = std::make_unique<Spool>(folder + "/" + name + ".documents");
  sentences_ = std::make_unique<Spool>(folder + "/" + name + ".sentences");
}

TokenFileWriter::~TokenFileWriter() = default;

void TokenFileWriter::append(std::span<const int32_t> tokens, std::span<const uint32_t> sentences) {
  documents_->append(header_.num_tokens);
  if (sentences.empty()) sentences_->append(header_.num_tokens);
  for (const uint32_t start : sentences) sentences_->append(header_.num_tokens + start);
  const size_t width = wide_ ? 4 : 2;
  packed_.resize(tokens.size() * width);
  std::byte* out = packed_.data();
  for (const int32_t token : tokens) {
    ++counts_.at(token);
    std::memcpy(out, &token, width);  // little-endian, as everywhere that we run
    out += width;
  }
  tokens_->append(packed_.data(), packed_.size());
  header_.num_tokens += static_cast<int64_t>(tokens.size());
  header_.num_sentences += sentences.empty() ? 1 : static_cast<int64_t>(sentences.size());
  ++header_.num_documents;
}

TokenFileHeader TokenFileWriter::finish() {
  documents_->append(header_.num_tokens);
  sentences_->append(header_.num_tokens);
  for (const uint64_t count : counts_) {
    const double share = static_cast<double>(count) / static_cast<double>(header_.num_tokens);
    if (count > 0) header_.unigram_entropy -= share * std::log(share);
  }
  auto file = hdf5::File::create(path_);
  file.set_attribute("/", "format", std::string(token_format::name));
  file.set_attribute("/", "format_version", token_format::version);
  file.set_attribute("/", "vocab_size", int64_t{header_.vocab_size});
  file.set_attribute("/", "num_documents", header_.num_documents);
  file.set_attribute("/", "num_sentences", header_.num_sentences);
  file.set_attribute("/", "num_tokens", header_.num_tokens);
  file.set_attribute("/", "unigram_entropy", header_.unigram_entropy);
  for (const auto& [name, member] : token_format::special_names) {
    file.set_attribute("/", name, int64_t{header_.special.*member});
  }
  file.set_attribute("/", "content_hash",
                     token_format::content_hash({tokens_->hash(), documents_->hash(), sentences_->hash()},
                                                tokenizer_json_, header_));
  file.write_text("/tokenizer", tokenizer_json_);
  tokens_->copy_into(file, "/tokens", wide_ ? hdf5::Type::u32 : hdf5::Type::u16);
  documents_->copy_into(file, "/documents", hdf5::Type::u64);
  sentences_->copy_into(file, "/sentences", hdf5::Type::u64);
  file.close();
  sync_to_disk(path_);
  return header_;
}

void sync_to_disk(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool good = file >= 0 && ::fsync(file) == 0;
  const int reason = errno;
  if (file >= 0) ::close(file);
  if (!good) throw Error(fmt::format("{}: cannot be written to disk: {}", path, std::strerror(reason)));
}

}  // namespace tessera
