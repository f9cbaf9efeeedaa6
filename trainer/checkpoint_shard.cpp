// Writing the files of a checkpoint: HDF5 lays them out, the data go in by plain writes (no global lock
// held).
#include <fcntl.h>
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <filesystem>

#include "datasets/hdf5.h"
#include "recipes/error.h"
#include "trainer/checkpoint_format.h"

namespace tessera::checkpoint {

using nlohmann::json;

void to_json(json& to, const ShardEntry& entry) {
  to = json{{"name", entry.name},
            {"path", entry.path},
            {"type", hdf5::name_of(entry.type)},
            {"global_shape", entry.global_shape},
            {"offset", entry.offset},
            {"shape", entry.shape},
            {"at", entry.at},
            {"xxh3", fmt::format("{:016x}", entry.checksum)}};
}

void from_json(const json& from, ShardEntry& entry) {
  entry.name = from.at("name"), entry.path = from.at("path");
  entry.type = type_named(from.at("type"));
  entry.global_shape = from.at("global_shape").get<std::vector<int64_t>>();
  entry.offset = from.at("offset").get<std::vector<int64_t>>();
  entry.shape = from.at("shape").get<std::vector<int64_t>>();
  entry.at = from.at("at");
  entry.checksum = std::stoull(from.at("xxh3").get<std::string>(), nullptr, 16);
}

void write_shard(const std::string& path, std::vector<ShardEntry> entries,
                 const std::vector<const std::byte*>& data) {
  auto layout = hdf5::File::create(path, seal_bytes);
  std::vector<Range> ranges;
  for (size_t i = 0; i < entries.size(); ++i) {
    auto& entry = entries[i];
    entry.path = "/" + entry.name;
    for (int copy = 1; layout.exists(entry.path); ++copy)
      entry.path = fmt::format("/{}#{}", entry.name, copy);
    layout.reserve(entry.path, entry.type, entry.shape);
    entry.at = layout.info(entry.path).file_offset;
    entry.checksum = XXH3_64bits(data[i], size_t(entry.bytes()));
    if (entry.bytes() > 0) ranges.push_back({entry.at, entry.at + entry.bytes()});
  }
  layout.write_text("/index", json(entries).dump());
  layout.close();
  std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
  OpenFile file(path, O_RDWR);
  file.reserve(file.size());
  for (size_t i = 0; i < entries.size(); ++i) file.write(entries[i].at, data[i], entries[i].bytes());
  seal(file, "checkpoint shard", ranges);
  file.sync();
}

WrittenShard read_shard_index(const std::string& path) {
  WrittenShard shard{.seal = read_seal(OpenFile(path, O_RDONLY), path, "checkpoint shard"), .entries = {}};
  shard.entries = json::parse(hdf5::File::open(path).read_text("/index")).get<std::vector<ShardEntry>>();
  return shard;
}

namespace {

struct Stitched {
  hdf5::Type type;
  std::vector<int64_t> shape;
  std::vector<hdf5::Piece> pieces;
  json places = json::array();  // [shard, offset, shape, at, checksum] of each piece
  int64_t covered = 0;
};

std::map<std::string, Stitched> stitch(const std::vector<WrittenShard>& shards) {
  std::map<std::string, Stitched> tensors;
  for (size_t shard = 0; shard < shards.size(); ++shard) {
    for (const auto& entry : shards[shard].entries) {
      auto [found, added] = tensors.try_emplace(entry.name, Stitched{entry.type, entry.global_shape, {}});
      Stitched& tensor = found->second;
      if (tensor.type != entry.type || tensor.shape != entry.global_shape) {
        throw Error(
            fmt::format("checkpoint: tensor '{}' differs in type or shape between ranks", entry.name));
      }
      tensor.covered += volume(entry.shape);
      if (entry.bytes() == 0) continue;
      tensor.pieces.push_back({shard_file(int(shard)), entry.path, entry.offset, entry.shape});
      tensor.places.push_back(
          json{shard, entry.offset, entry.shape, entry.at, fmt::format("{:016x}", entry.checksum)});
    }
  }
  for (const auto& [name, tensor] : tensors) {
    if (tensor.covered == volume(tensor.shape)) continue;
    throw Error(fmt::format("checkpoint: the ranks wrote {} of the {} elements of tensor '{}'",
                            tensor.covered, volume(tensor.shape), name));
  }
  return tensors;
}

void write_facts(hdf5::File& file, const CheckpointMeta& meta) {
  file.set_attribute("/", "format_version", format_version);
  file.set_attribute("/", "tessera_version", std::string(TESSERA_VERSION));
  file.set_attribute("/", "step", meta.step);
  file.set_attribute("/", "samples", meta.samples);
  file.set_attribute("/", "seed", meta.seed);
  if (meta.score) file.set_attribute("/", "score", *meta.score);
  file.write_text("/recipe", meta.recipe);
  file.write_text("/tokenizer", meta.tokenizer);
  file.write_text("/state", meta.state_json);
  file.write_text("/layout", meta.layout);
}

}  // namespace

void write_main(const std::string& path, const CheckpointMeta& meta,
                const std::vector<WrittenShard>& shards) {
  const auto tensors = stitch(shards);
  auto file = hdf5::File::create(path, seal_bytes);
  write_facts(file, meta);
  json index = {{"shards", json::array()}, {"tensors", json::object()}};
  for (size_t shard = 0; shard < shards.size(); ++shard) {
    index["shards"].push_back({{"file", shard_file(int(shard))}, {"seal", shards[shard].seal}});
  }
  for (const auto& [name, tensor] : tensors) {
    file.write_virtual("/" + name, tensor.type, tensor.shape, tensor.pieces);
    index["tensors"][name] = {
        {"type", hdf5::name_of(tensor.type)}, {"shape", tensor.shape}, {"pieces", tensor.places}};
  }
  file.write_text("/index", index.dump());
  file.close();
  OpenFile sealed(path, O_RDWR);
  seal(sealed, "checkpoint", {});
  sealed.sync();
}

}  // namespace tessera::checkpoint
