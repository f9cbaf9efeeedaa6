#pragma once
// Checkpoints: a folder step-00001000/ with checkpoint.h5 and one shard-*.h5 of each rank that wrote.
//
// Every tensor is a dataset at its global shape in checkpoint.h5 ("model/<name>", "optimizer/<slot>/<name>",
// "ema/<name>"), stitched from the rectangles in the shards: h5py and h5dump read it whole, any mesh reads
// its part. A folder is written under a hidden name, made durable and renamed last: one with its final name
// is complete.
#include <chrono>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "datasets/hdf5.h"
#include "trainer/tensor_piece.h"

namespace tessera {

/// This rank's share of pieces that `size` replicas all hold: balanced by bytes, cut along dim 0 where
/// needed. The shares of all ranks together are the pieces.
std::vector<TensorPiece> share_out(const std::vector<TensorPiece>& pieces, int rank, int size);

/// The same where each piece says who holds it: every group of holders shares out what it holds.
std::vector<TensorPiece> share_out(const std::vector<TensorPiece>& pieces);

struct CheckpointMeta {
  int64_t step = 0;
  int64_t samples = 0;  ///< consumed so far
  uint64_t seed = 0;
  std::optional<double> score;  ///< validation loss: retention keeps the checkpoint with the lowest
  std::string recipe;           ///< resolved, YAML
  std::string tokenizer;        ///< tokenizer.json, "" where there is none
  std::string state_json;       ///< schedule, loss scaler, views: whatever the loop needs to go on
  std::string layout;           ///< the mesh that wrote this, for people
  std::string version;          ///< filled in when written: the program's version
};

struct CheckpointOptions {
  std::string folder;  ///< .../checkpoints; made as needed
  int rank = 0, size = 1;
  /// Everyone's text in order of rank (Communicator::gather_text); may stay empty for one rank. Used in the
  /// constructor only: nothing communicates while a checkpoint is written.
  std::function<std::vector<std::string>(const std::string&)> gather_text;
  int keep = 3;            ///< newest checkpoints to keep, at least 1
  bool keep_best = true;   ///< and the one with the lowest score
  bool background = true;  ///< write while training goes on
  /// Throws where what this rank has computed cannot be trusted (Communicator::check); may stay empty. Called
  /// by save() when it has copied the pieces: nothing of a rank that throws is written, so that nothing is
  /// published.
  std::function<void()> check;
  double patience = 600;  ///< seconds that rank 0 waits for the other ranks' shards once its own is written
};

/// Writes checkpoints. All ranks make one, and call save() at the same steps.
class CheckpointWriter {
 public:
  /// Collective. Makes the folder, checks that all ranks see the same one, removes what killed runs left
  /// half-written. Errors: Error, the same on every rank.
  explicit CheckpointWriter(CheckpointOptions options);
  ~CheckpointWriter();  ///< waits; an error is then lost, so call wait() first
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// Copies this rank's pieces and returns; a thread writes them. Waits first if the previous checkpoint is
  /// still being written. Saving the step that was saved last does nothing. `pieces` of all ranks must tile
  /// the tensors; a rank may have none. Errors: those of the previous save() that ran in the background (full
  /// disk, lost file system, a rank that did not deliver), as Error naming the file, and what `check` throws;
  /// earlier checkpoints stay, and save() may be called again.
  void save(const CheckpointMeta& meta, const std::vector<TensorPiece>& pieces);

  /// Until the last save() is on disk under its final name on rank 0 (its shard, on the other ranks). Errors
  /// as save().
  void wait();
  /// The same, for so long, of a run that ends with another error than its own.
  void wait_for(std::chrono::seconds time) const;

 private:
  struct Job;
  void stage(const CheckpointMeta& meta, const std::vector<TensorPiece>& pieces);
  void write();
  void gather_shards(const std::string& temporary);

  CheckpointOptions options_;
  std::string nonce_;  // tells this run's temporary folders from those of others
  std::unique_ptr<Job> job_;
  std::future<void> pending_;
  int64_t last_step_ = -1;
};

/// A tensor in a checkpoint.
struct TensorInfo {
  hdf5::Type type;
  std::vector<int64_t> shape;
  struct Piece {
    size_t shard;  ///< which shard file
    std::vector<int64_t> offset, shape;
    int64_t at;  ///< byte in the file
    uint64_t checksum;
  };
  std::vector<Piece> pieces;
  int64_t bytes() const;
};

/// Reads a checkpoint; each rank only what it asks for. Damage is an Error that names the file and what is
/// wrong.
class CheckpointReader {
 public:
  /// `path`: a step folder (or its checkpoint.h5), a folder of those, or a run folder; of several the newest
  /// whole one. Checks the structure: checkpoint.h5's checksum, and that every shard is there, of the right
  /// size and kind.
  static CheckpointReader open(const std::string& path);
  ~CheckpointReader();
  CheckpointReader(CheckpointReader&&) noexcept;

  const std::string& folder() const { return folder_; }
  const CheckpointMeta& meta() const { return meta_; }
  const std::map<std::string, TensorInfo>& tensors() const { return tensors_; }
  const TensorInfo& info(const std::string& name) const;  ///< Error with the nearest name where there is none
  bool has(const std::string& name) const { return tensors_.count(name) > 0; }
  int num_shards() const;
  int64_t bytes() const;  ///< of all files

  at::Tensor read(const std::string& name) const;  ///< whole, as stored
  at::Tensor read(const std::string& name, const std::vector<int64_t>& offset,
                  const std::vector<int64_t>& shape) const;
  /// Fills `target` with the rectangle of its size at `offset`, converted to its type and device. The
  /// checksum of each stored piece that this covers whole is verified.
  void read_into(const std::string& name, const std::vector<int64_t>& offset, at::Tensor target) const;

  /// Reads everything and compares all checksums; one line for each problem, none when all is well.
  std::vector<std::string> verify() const;

 private:
  struct Shard;
  CheckpointReader();
  void read_piece(const std::string& name, const TensorInfo& info, const TensorInfo::Piece& piece,
                  const std::vector<int64_t>& offset, const at::Tensor& target) const;

  std::string folder_;
  CheckpointMeta meta_;
  std::map<std::string, TensorInfo> tensors_;
  std::unique_ptr<std::vector<Shard>> shards_;
};

/// Step folders in `folder` by rising step, whole or not. Empty where there is no such folder.
std::vector<std::string> list_checkpoints(const std::string& folder);

struct NewestCheckpoint {
  std::string path;  ///< "" when there is none
  std::vector<std::string>
      skipped;  ///< newer ones that are damaged: "folder: what is wrong", for rank 0 to say
};
/// The newest checkpoint whose structure is whole, of a checkpoints folder or a run folder.
NewestCheckpoint newest_checkpoint(const std::string& folder);

}  // namespace tessera
