#include <ATen/ATen.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "recipes/error.h"
#include "trainer/checkpoint_format.h"

namespace fs = std::filesystem;

namespace tessera {

using namespace checkpoint;
using nlohmann::json;

struct CheckpointReader::Shard {
  std::string path;
  OpenFile file;
};

CheckpointReader::CheckpointReader() : shards_(std::make_unique<std::vector<Shard>>()) {}
CheckpointReader::~CheckpointReader() = default;
CheckpointReader::CheckpointReader(CheckpointReader&&) noexcept = default;

int64_t TensorInfo::bytes() const { return volume(shape) * int64_t(hdf5::size_of(type)); }

namespace {

/// What there is at a path that holds no checkpoint, for the message.
std::string contents(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (auto entry = fs::directory_iterator(folder, error);
       entry != fs::directory_iterator() && names.size() < 8; entry.increment(error)) {
    names.push_back(entry->path().filename());
  }
  std::sort(names.begin(), names.end());
  return names.empty() ? "the folder is empty" : "the folder holds: " + join(names);
}

std::string step_folder_of(const std::string& path) {
  if (!fs::exists(path)) throw Error(path + ": no such file or folder");
  if (!fs::is_directory(path)) {
    if (fs::path(path).filename() == main_file) return fs::absolute(path).parent_path();
    throw Error(path +
                ": is a file; expected a checkpoint's folder (step-…), a folder of them, or a run's folder");
  }
  if (fs::exists(fs::path(path) / main_file)) return path;
  const auto newest = newest_checkpoint(path);
  if (!newest.path.empty()) return newest.path;
  if (!newest.skipped.empty()) {
    throw Error(fmt::format("{}: no whole checkpoint; damaged: {}", path, join(newest.skipped, "; ")));
  }
  throw Error(fmt::format("{}: no checkpoint here; {}", path, contents(path)));
}

CheckpointMeta read_facts(const hdf5::File& file) {
  CheckpointMeta meta;
  meta.step = file.integer_attribute("/", "step");
  meta.samples = file.integer_attribute("/", "samples");
  meta.seed = static_cast<uint64_t>(file.integer_attribute("/", "seed"));
  meta.version = file.text_attribute("/", "tessera_version");
  if (file.has_attribute("/", "score")) meta.score = file.real_attribute("/", "score");
  meta.recipe = file.read_text("/recipe");
  meta.tokenizer = file.read_text("/tokenizer");
  meta.state_json = file.read_text("/state");
  meta.layout = file.read_text("/layout");
  return meta;
}

std::string mismatch(const std::string& shard, const std::string& tensor) {
  return fmt::format("{}: damaged: the checksum of tensor '{}' does not match", shard, tensor);
}

std::string in_words(at::IntArrayRef shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

TensorInfo read_info(const json& from) {
  TensorInfo info{type_named(from.at("type")), from.at("shape").get<std::vector<int64_t>>(), {}};
  for (const auto& place : from.at("pieces")) {
    info.pieces.push_back({place.at(0), place.at(1).get<std::vector<int64_t>>(),
                           place.at(2).get<std::vector<int64_t>>(), place.at(3),
                           std::stoull(place.at(4).get<std::string>(), nullptr, 16)});
  }
  return info;
}

}  // namespace

CheckpointReader CheckpointReader::open(const std::string& path) {
  CheckpointReader reader;
  reader.folder_ = step_folder_of(path);
  const std::string main = fs::path(reader.folder_) / main_file;
  {
    const OpenFile file(main, O_RDONLY);
    read_seal(file, main, "checkpoint");
    if (!seal_holds(file, "checkpoint", {})) throw Error(main + ": damaged: its checksum does not match");
  }
  const auto file = hdf5::File::open(main);
  reader.meta_ = read_facts(file);
  const auto index = json::parse(file.read_text("/index"));
  for (const auto& [name, tensor] : index.at("tensors").items())
    reader.tensors_.emplace(name, read_info(tensor));
  for (const auto& shard : index.at("shards")) {
    const std::string shard_path = fs::path(reader.folder_) / shard.at("file").get<std::string>();
    if (!fs::exists(shard_path))
      throw Error(shard_path + ": missing; the checkpoint cannot be read without it");
    OpenFile shard_file(shard_path, O_RDONLY);
    if (read_seal(shard_file, shard_path, "checkpoint shard") != shard.at("seal").get<std::string>()) {
      throw Error(shard_path + ": belongs to another checkpoint");
    }
    reader.shards_->push_back({shard_path, std::move(shard_file)});
  }
  return reader;
}

const TensorInfo& CheckpointReader::info(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found != tensors_.end()) return found->second;
  std::vector<std::string> names;
  for (const auto& [there, info] : tensors_) names.push_back(there);
  const std::string near = nearest(name, names);
  throw Error(fmt::format("{}: no tensor '{}' among its {}{}", folder_, name, names.size(),
                          near.empty() ? "" : "; did you mean '" + near + "'?"));
}

int CheckpointReader::num_shards() const { return static_cast<int>(shards_->size()); }

int64_t CheckpointReader::bytes() const {
  int64_t total = OpenFile(fs::path(folder_) / main_file, O_RDONLY).size();
  for (const auto& shard : *shards_) total += shard.file.size();
  return total;
}

at::Tensor CheckpointReader::read(const std::string& name) const {
  const auto& about = info(name);
  return read(name, std::vector<int64_t>(about.shape.size(), 0), about.shape);
}

at::Tensor CheckpointReader::read(const std::string& name, const std::vector<int64_t>& offset,
                                  const std::vector<int64_t>& shape) const {
  auto target = at::empty(shape, tensor_type(info(name).type));
  read_into(name, offset, target);
  return target;
}

void CheckpointReader::read_into(const std::string& name, const std::vector<int64_t>& offset,
                                 at::Tensor target) const {
  const auto& about = info(name);
  target = target.detach();
  bool inside = offset.size() == about.shape.size() && size_t(target.dim()) == about.shape.size();
  for (size_t dim = 0; inside && dim < offset.size(); ++dim) {
    inside = offset[dim] >= 0 && offset[dim] + target.size(int64_t(dim)) <= about.shape[dim];
  }
  if (!inside) {
    throw Error(fmt::format("{}: tensor '{}' has shape {}; {} at {} is not in it", folder_, name,
                            in_words(about.shape), in_words(target.sizes()), in_words(offset)));
  }
  for (const auto& piece : about.pieces) read_piece(name, about, piece, offset, target);
}

namespace {

/// Where a stored piece and a target of read_into() meet.
struct Overlap {
  at::Tensor view;            ///< the part of the target
  std::vector<int64_t> from;  ///< where it begins in the piece
  bool whole_rows = true;     ///< of dim 0: what is wanted lies in one stretch of the file
  bool whole = true;          ///< the piece is wanted whole
};

std::optional<Overlap> overlap(const TensorInfo::Piece& piece, const std::vector<int64_t>& offset,
                               const at::Tensor& target) {
  Overlap found{.view = target, .from = std::vector<int64_t>(offset.size())};
  for (size_t dim = 0; dim < offset.size(); ++dim) {
    const int64_t begin = std::max(offset[dim], piece.offset[dim]);
    const int64_t end =
        std::min(offset[dim] + target.size(int64_t(dim)), piece.offset[dim] + piece.shape[dim]);
    if (begin >= end) return std::nullopt;
    found.from[dim] = begin - piece.offset[dim];
    found.view = found.view.narrow(int64_t(dim), begin - offset[dim], end - begin);
    const bool full = end - begin == piece.shape[dim];
    found.whole &= full;
    found.whole_rows &= dim == 0 || full;
  }
  return found;
}

}  // namespace

/// Rows of dim 0 are read in portions, straight into the target where it has the same type and layout.
void CheckpointReader::read_piece(const std::string& name, const TensorInfo& about,
                                  const TensorInfo::Piece& piece, const std::vector<int64_t>& offset,
                                  const at::Tensor& target) const {
  const auto met = overlap(piece, offset, target);
  if (!met) return;
  const auto& shard = shards_->at(piece.shard);
  const auto type = tensor_type(about.type);
  // A scalar is a row of itself.
  const at::Tensor view = offset.empty() ? met->view.unsqueeze(0) : met->view;
  auto shape = offset.empty() ? std::vector<int64_t>{1} : piece.shape;
  const int64_t rows = view.size(0), first = offset.empty() ? 0 : met->from[0];
  const int64_t row_bytes = volume(shape) / shape[0] * int64_t(hdf5::size_of(about.type));
  const bool direct = met->whole_rows && view.is_cpu() && view.is_contiguous() && view.scalar_type() == type;
  const int64_t portion = std::clamp<int64_t>((4 << 20) / row_bytes, 1, rows);
  shape[0] = portion;
  const at::Tensor buffer = direct ? view : at::empty(shape, type);
  Hash hash;
  for (int64_t row = 0; row < rows; row += portion) {
    const int64_t count = std::min(portion, rows - row);
    char* data = static_cast<char*>(buffer.data_ptr()) + (direct ? row * row_bytes : 0);
    shard.file.read(piece.at + (first + row) * row_bytes, data, count * row_bytes);
    if (met->whole) hash.add(data, count * row_bytes);
    if (direct) continue;
    at::Tensor wanted = buffer.narrow(0, 0, count);
    for (int64_t dim = 1; dim < view.dim(); ++dim)
      wanted = wanted.narrow(dim, met->from[size_t(dim)], view.size(dim));
    view.narrow(0, row, count).copy_(wanted);
  }
  if (met->whole && hash.value() != piece.checksum) throw Error(mismatch(shard.path, name));
}

std::vector<std::string> CheckpointReader::verify() const {
  std::vector<std::string> problems;
  std::vector<std::vector<Range>> ranges(shards_->size());
  for (const auto& [name, about] : tensors_) {
    for (const auto& piece : about.pieces) {
      const auto& shard = shards_->at(piece.shard);
      const Range range{piece.at, piece.at + volume(piece.shape) * int64_t(hdf5::size_of(about.type))};
      ranges[piece.shard].push_back(range);
      if (hash_of(shard.file, range) != piece.checksum) problems.push_back(mismatch(shard.path, name));
    }
  }
  for (size_t i = 0; i < shards_->size(); ++i) {
    const auto& shard = shards_->at(i);
    std::sort(ranges[i].begin(), ranges[i].end(), [](Range a, Range b) { return a.begin < b.begin; });
    if (!seal_holds(shard.file, "checkpoint shard", ranges[i])) {
      problems.push_back(shard.path + ": damaged outside its tensors: the checksum does not match");
    }
  }
  return problems;
}

}  // namespace tessera
