#include <ATen/ATen.h>
#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "parallel/pinned_memory.h"
#include "recipes/error.h"
#include "trainer/checkpoint_format.h"

namespace fs = std::filesystem;

namespace tessera {

using namespace checkpoint;

std::vector<TensorPiece> share_out(const std::vector<TensorPiece>& pieces, int rank, int size) {
  // All bytes in a row, cut into `size` equal parts; a cut falls on the nearest boundary between rows of dim
  // 0.
  int64_t total = 0;
  for (const auto& piece : pieces) total += int64_t(piece.local.nbytes());
  const double begin = double(total) * rank / size, end = double(total) * (rank + 1) / size;
  std::vector<TensorPiece> share;
  int64_t before = 0;
  for (const auto& piece : pieces) {
    const int64_t bytes = int64_t(piece.local.nbytes());
    const bool divisible = piece.local.dim() > 0 && bytes >= (1 << 20);
    const int64_t rows = divisible ? piece.local.size(0) : 1;
    const auto row_at = [&](double cut) {
      const double row = bytes == 0 ? 0 : (cut - double(before)) / double(bytes) * double(rows);
      return std::clamp<int64_t>(std::llround(row), 0, rows);
    };
    const int64_t first = rank == 0 ? 0 : row_at(begin), last = rank == size - 1 ? rows : row_at(end);
    before += bytes;
    if (first >= last) continue;
    share.push_back(piece);
    if (!divisible) continue;
    share.back().local = piece.local.narrow(0, first, last - first);
    share.back().offset[0] += first;
  }
  return share;
}

std::vector<TensorPiece> share_out(const std::vector<TensorPiece>& pieces) {
  std::map<int, std::vector<TensorPiece>> kinds;
  for (const auto& piece : pieces) kinds[piece.kind].push_back(piece);
  std::vector<TensorPiece> share;
  for (const auto& [kind, alike] : kinds) {
    for (auto& piece : share_out(alike, alike.front().holder, alike.front().holders)) {
      share.push_back(std::move(piece));
    }
  }
  return share;
}

/// One save() on its way to disk. Kept from save to save: the staging buffer is allocated once.
struct CheckpointWriter::Job {
  int64_t number = 0;  // of this save() in the run, the same on all ranks
  CheckpointMeta meta;
  std::vector<ShardEntry> entries;
  std::vector<const std::byte*> data;
  at::Tensor staging;
};

namespace {

void check_options(const CheckpointOptions& options) {
  if (options.keep < 1) throw Error(fmt::format("checkpoint: keep is {}, must be at least 1", options.keep));
}

/// Rank 0's part of the start: the folder, writable, without leftovers, and a mark for the others to find.
void prepare_folder(const std::string& folder, const std::string& mark) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error(fmt::format("{}: cannot be made: {}", folder, error.message()));
  remove_leftovers(folder);
  OpenFile(mark, O_CREAT | O_WRONLY).sync();
  sync_folder(fs::absolute(folder).parent_path());
}

/// Network file systems may show a new file late.
bool appears(const std::string& path, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!fs::exists(path)) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

}  // namespace

CheckpointWriter::CheckpointWriter(CheckpointOptions options)
    : options_(std::move(options)), job_(std::make_unique<Job>()) {
  check_options(options_);
  if (!options_.gather_text) options_.gather_text = [](const std::string& text) { return std::vector{text}; };
  const auto mark_of = [&](const std::string& nonce) { return options_.folder + "/.writer-" + nonce; };
  std::string said = "+" + make_nonce();
  if (options_.rank == 0) {
    try {
      prepare_folder(options_.folder, mark_of(said.substr(1)));
    } catch (const Error& error) {
      said = std::string("-") + error.what();
    }
  }
  const auto first = options_.gather_text(said).at(0);
  if (first[0] == '-') throw Error(first.substr(1));
  nonce_ = first.substr(1);
  const std::string mine = make_nonce();
  const auto seen =
      options_.gather_text((appears(mark_of(nonce_), std::min(10.0, options_.patience)) ? "+" : "-") + mine);
  if (options_.rank == 0) fs::remove(mark_of(nonce_));
  for (size_t rank = 0; rank < seen.size(); ++rank) {
    if (seen[rank][0] == '+') continue;
    const std::string host = seen[rank].substr(1, seen[rank].find('@') - 1);
    throw Error(
        fmt::format("{}: rank {} on host {} does not see what rank 0 wrote there; checkpoints need a folder "
                    "that all hosts share",
                    options_.folder, rank, host));
  }
}

CheckpointWriter::~CheckpointWriter() {
  if (pending_.valid()) pending_.wait();
}

void CheckpointWriter::save(const CheckpointMeta& meta, const std::vector<TensorPiece>& pieces) {
  if (meta.step == last_step_) return;
  wait();
  stage(meta, pieces);
  if (options_.check) options_.check();
  last_step_ = meta.step;
  pending_ =
      std::async(options_.background ? std::launch::async : std::launch::deferred, [this] { write(); });
  if (!options_.background) wait();
}

void CheckpointWriter::wait() {
  if (!pending_.valid()) return;
  try {
    pending_.get();
  } catch (...) {
    last_step_ = -1;
    throw;
  }
}

void CheckpointWriter::wait_for(std::chrono::seconds time) const {
  if (pending_.valid()) pending_.wait_for(time);
}

void CheckpointWriter::stage(const CheckpointMeta& meta, const std::vector<TensorPiece>& pieces) {
  constexpr int64_t alignment = 64;
  Job& job = *job_;
  ++job.number;
  job.meta = meta;
  job.entries.clear(), job.data.clear();
  int64_t total = 0;
  at::Device device = at::kCPU;
  for (const auto& piece : pieces) {
    total += (int64_t(piece.local.nbytes()) + alignment - 1) / alignment * alignment;
    if (!piece.local.is_cpu()) device = piece.local.device();
  }
  if (!job.staging.defined() || job.staging.numel() < total) {
    job.staging = host_empty({total}, at::kByte, device);
  }
  auto* at = static_cast<std::byte*>(job.staging.data_ptr());
  for (const auto& piece : pieces) {
    if (piece.local.numel() == 0 && volume(piece.global_shape) > 0)
      continue;  // an empty share covers nothing
    job.entries.push_back({.name = piece.name,
                           .path = "",
                           .type = stored_type(piece.local.scalar_type(), piece.name),
                           .global_shape = piece.global_shape,
                           .offset = piece.offset,
                           .shape = piece.local.sizes().vec()});
    job.data.push_back(at);
    at::from_blob(at, piece.local.sizes(), piece.local.options().device(at::kCPU).requires_grad(false))
        .copy_(piece.local.detach());
    at += (int64_t(piece.local.nbytes()) + alignment - 1) / alignment * alignment;
  }
}

void CheckpointWriter::write() {
  const std::string name = step_folder(job_->meta.step);
  // The number keeps what a rank delivers late to a failed attempt out of the next.
  const std::string temporary = fmt::format("{}/.{}.tmp-{}.{}", options_.folder, name, nonce_, job_->number);
  const std::string part = fmt::format("{}/.{}.part", temporary, shard_file(options_.rank));
  try {
    std::error_code error;
    fs::create_directories(temporary, error);
    if (error) throw Error(fmt::format("{}: cannot be made: {}", temporary, error.message()));
    write_shard(part, job_->entries, job_->data);
    if (std::rename(part.c_str(), (temporary + "/" + shard_file(options_.rank)).c_str()) != 0) {
      fail_with_reason(part, "cannot be renamed");
    }
    sync_folder(temporary);
    if (options_.rank != 0) return;
    gather_shards(temporary);
    publish(temporary, options_.folder + "/" + name);
    apply_retention(options_.folder + "/" + name, options_);
  } catch (const std::exception& error) {
    discard(part);
    if (options_.rank == 0) {
      discard(temporary + "/" + main_file);
      for (int rank = 0; rank < options_.size; ++rank) discard(temporary + "/" + shard_file(rank));
      std::error_code ignored;
      fs::remove_all(temporary, ignored);
    } else {
      std::ofstream(fmt::format("{}/{}.failed", temporary, shard_file(options_.rank))) << error.what();
    }
    throw;
  }
}

void CheckpointWriter::gather_shards(const std::string& temporary) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(options_.patience);
  std::vector<WrittenShard> shards(size_t(options_.size));
  auto pause = std::chrono::milliseconds(1);
  for (int rank = 0; rank < options_.size;) {
    const std::string shard = temporary + "/" + shard_file(rank);
    if (fs::exists(shard)) {
      shards[size_t(rank++)] = read_shard_index(shard);
      continue;
    }
    if (std::ifstream failed(shard + ".failed"); failed) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));  // may just be being written
      throw Error(std::string(std::istreambuf_iterator<char>(failed), {}));
    }
    if (std::chrono::steady_clock::now() > end) {
      throw Error(
          fmt::format("{}: rank {} has not written it after {:.0f} s: its host is stuck, or does not share "
                      "this folder",
                      shard, rank, options_.patience));
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, std::chrono::milliseconds(200));
  }
  write_main(temporary + "/" + main_file, job_->meta, shards);
}

}  // namespace tessera
