#include "trainer/checkpoint_format.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <numeric>

#include "recipes/error.h"

namespace tessera::checkpoint {
namespace {

constexpr std::array<std::pair<at::ScalarType, hdf5::Type>, 9> types = {{{at::kFloat, hdf5::Type::f32},
                                                                         {at::kDouble, hdf5::Type::f64},
                                                                         {at::kBFloat16, hdf5::Type::bf16},
                                                                         {at::kHalf, hdf5::Type::f16},
                                                                         {at::kLong, hdf5::Type::i64},
                                                                         {at::kInt, hdf5::Type::i32},
                                                                         {at::kShort, hdf5::Type::i16},
                                                                         {at::kChar, hdf5::Type::i8},
                                                                         {at::kByte, hdf5::Type::u8}}};

constexpr int64_t chunk_bytes = 8 << 20;  // large writes, yet small enough to overlap with the disk

std::string seal_text(const std::string& kind, int64_t bytes, uint64_t hash) {
  return fmt::format("tessera {}\nformat: {}\nbytes: {}\nxxh3: {:016x}\n", kind, format_version, bytes, hash);
}

}  // namespace

std::string shard_file(int rank) { return fmt::format("shard-{:05d}.h5", rank); }
std::string step_folder(int64_t step) { return fmt::format("step-{:08d}", step); }

hdf5::Type stored_type(at::ScalarType type, const std::string& name) {
  for (const auto& [ours, stored] : types) {
    if (ours == type) return stored;
  }
  throw Error(fmt::format("checkpoint: tensor '{}' is of type {}, which cannot be stored", name,
                          c10::toString(type)));
}

at::ScalarType tensor_type(hdf5::Type type) {
  for (const auto& [ours, stored] : types) {
    if (stored == type) return ours;
  }
  throw Error(fmt::format("checkpoint: no tensor has elements of type {}", hdf5::name_of(type)));
}

hdf5::Type type_named(const std::string& name) {
  for (const auto& [ours, stored] : types) {
    if (hdf5::name_of(stored) == name) return stored;
  }
  throw Error(fmt::format("checkpoint: unknown element type '{}'", name));
}

int64_t volume(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t(1), std::multiplies<>());
}

void sync_folder(const std::string& folder) { OpenFile(folder, O_RDONLY | O_DIRECTORY).sync(); }

void discard(const std::string& file) {
  static_cast<void>(!truncate(file.c_str(), 0));
  unlink(file.c_str());
}

Hash::Hash()
    : state_(XXH3_createState(), [](void* state) { XXH3_freeState(static_cast<XXH3_state_t*>(state)); }) {
  XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_.get()));
}
void Hash::add(const void* data, int64_t bytes) {
  XXH3_64bits_update(static_cast<XXH3_state_t*>(state_.get()), data, size_t(bytes));
}
uint64_t Hash::value() const { return XXH3_64bits_digest(static_cast<const XXH3_state_t*>(state_.get())); }

uint64_t hash_of(const OpenFile& file, Range range, const std::vector<Range>& excluded) {
  Hash hash;
  std::vector<char> buffer;
  int64_t at = range.begin;
  const auto take_until = [&](int64_t end) {
    for (int64_t bytes; at < end; at += bytes) {
      bytes = std::min(end - at, chunk_bytes);
      buffer.resize(size_t(bytes));
      file.read(at, buffer.data(), bytes);
      hash.add(buffer.data(), bytes);
    }
  };
  for (const auto& hole : excluded) {
    take_until(hole.begin);
    at = std::max(at, hole.end);
  }
  take_until(range.end);
  return hash.value();
}

std::string seal(OpenFile& file, const std::string& kind, const std::vector<Range>& excluded) {
  std::string text = seal_text(kind, file.size(), hash_of(file, {seal_bytes, file.size()}, excluded));
  std::string block = text;
  block.resize(seal_bytes, '\0');
  file.write(0, block.data(), seal_bytes);
  return text;
}

std::string read_seal(const OpenFile& file, const std::string& path, const std::string& kind) {
  if (file.size() < seal_bytes) {
    throw Error(fmt::format("{}: has {} bytes: truncated, or not a Tessera {}", path, file.size(), kind));
  }
  std::string block(seal_bytes, '\0');
  file.read(0, block.data(), seal_bytes);
  int format = 0, end = 0;
  long long bytes = 0;
  unsigned long long hash = 0;
  const std::string pattern = "tessera " + kind + "\nformat: %d\nbytes: %lld\nxxh3: %16llx\n%n";
  if (block.rfind("tessera " + kind + "\n", 0) != 0)
    throw Error(fmt::format("{}: not a Tessera {}", path, kind));
  // The pattern is made of a constant and `kind`, which holds no '%'.
  const int found = std::sscanf(block.c_str(), pattern.c_str(), &format, &bytes, &hash, &end);
  if (found >= 1 && format > format_version) {
    throw Error(fmt::format("{}: has format {}, made by a newer Tessera; this program reads up to {}", path,
                            format, format_version));
  }
  std::string expected = seal_text(kind, bytes, hash);
  std::string text = expected;
  expected.resize(seal_bytes, '\0');
  if (found != 3 || expected != block)
    throw Error(fmt::format("{}: damaged: its first lines are garbled", path));
  if (bytes != file.size()) {
    throw Error(fmt::format("{}: damaged: has {} bytes instead of {}", path, file.size(), bytes));
  }
  return text;
}

bool seal_holds(const OpenFile& file, const std::string& kind, const std::vector<Range>& excluded) {
  std::string block(seal_bytes, '\0');
  file.read(0, block.data(), seal_bytes);
  std::string expected = seal_text(kind, file.size(), hash_of(file, {seal_bytes, file.size()}, excluded));
  expected.resize(seal_bytes, '\0');
  return block == expected;
}

}  // namespace tessera::checkpoint
