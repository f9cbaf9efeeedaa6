#pragma once
// Inside of checkpoint_*.cpp only: what lies where in a checkpoint's files.
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "trainer/checkpoint.h"
#include "trainer/files.h"

namespace tessera::checkpoint {

constexpr int format_version = 1;
constexpr int64_t seal_bytes = 4096;  // HDF5's user block: skipped by HDF5, ours
constexpr const char* main_file = "checkpoint.h5";

std::string shard_file(int rank);
std::string step_folder(int64_t step);

// --- types ---
hdf5::Type stored_type(at::ScalarType type,
                       const std::string& name);  ///< Error for those that cannot be stored
at::ScalarType tensor_type(hdf5::Type type);
int64_t volume(const std::vector<int64_t>& shape);

struct Range {
  int64_t begin, end;
};

// --- folders ---
void sync_folder(const std::string& folder);
/// Frees the space at once, even if HDF5 still holds the file open after a failed close.
void discard(const std::string& file);

/// XXH3-64 of bytes that come in portions.
class Hash {
 public:
  Hash();
  void add(const void* data, int64_t bytes);
  uint64_t value() const;

 private:
  std::shared_ptr<void> state_;
};

// --- seals: each file's first 4096 bytes say what it is, its size, and the XXH3 of all else that has no
// checksum ---
/// XXH3 of a file's bytes, outside `excluded` (rising, disjoint).
uint64_t hash_of(const OpenFile& file, Range range, const std::vector<Range>& excluded = {});
/// Hashes the bytes from the seal to the end outside `excluded` (rising, disjoint) and writes the seal.
std::string seal(OpenFile& file, const std::string& kind, const std::vector<Range>& excluded);
/// The text of a well-formed seal of `kind` that fits the file's size. Error saying what is wrong.
std::string read_seal(const OpenFile& file, const std::string& path, const std::string& kind);
/// Whether the bytes outside `excluded` are what the seal says.
bool seal_holds(const OpenFile& file, const std::string& kind, const std::vector<Range>& excluded);

// --- shards ---
/// One rectangle in a shard: its line in the shard's index.
struct ShardEntry {
  std::string name, path;  ///< of the tensor; of the dataset in the shard
  hdf5::Type type;
  std::vector<int64_t> global_shape, offset, shape;
  int64_t at = -1;
  uint64_t checksum = 0;
  int64_t bytes() const { return volume(shape) * int64_t(hdf5::size_of(type)); }
};
void to_json(nlohmann::json& json, const ShardEntry& entry);
void from_json(const nlohmann::json& json, ShardEntry& entry);
hdf5::Type type_named(const std::string& name);

/// Writes `entries` (their data beside them; at and checksum are filled in) as a sealed shard, durable on
/// return.
void write_shard(const std::string& path, std::vector<ShardEntry> entries,
                 const std::vector<const std::byte*>& data);

struct WrittenShard {
  std::string seal;
  std::vector<ShardEntry> entries;
};
WrittenShard read_shard_index(const std::string& path);

/// Writes checkpoint.h5 over `shards` (one of each rank), sealed and durable.
void write_main(const std::string& path, const CheckpointMeta& meta, const std::vector<WrittenShard>& shards);

// --- folders ---
/// Removes what dead runs left in `folder`; `own` is this run's nonce.
void remove_leftovers(const std::string& folder);
std::string make_nonce();  ///< host, process, time
/// Renames a finished temporary folder; an older checkpoint of that step gives way at the same instant.
void publish(const std::string& temporary, const std::string& final_path);
/// Removes all but the newest `keep`, the best (if asked) and `current`.
void apply_retention(const std::string& current, const CheckpointOptions& options);

}  // namespace tessera::checkpoint
