#pragma once
#include <string>

namespace tessera {

/// A folder whose files appear only when they are whole: they are made in a hidden folder inside, which only
/// one process at a time may have, and renamed into place. What is not published is removed with the object,
/// and what a killed process left behind by the next one. Errors: Error naming the path where it cannot be
/// made or another process has it.
class OutputFolder {
 public:
  explicit OutputFolder(const std::string& path);
  OutputFolder(const OutputFolder&) = delete;
  OutputFolder& operator=(const OutputFolder&) = delete;
  ~OutputFolder();

  std::string work() const { return path_ + "/.partial"; }  ///< where the files are made

  /// Moves WORK/NAME into place, replacing what was there; its content must be on disk. Returns the final
  /// path.
  std::string publish(const std::string& name);

 private:
  std::string path_;
  int lock_ = -1;
};

}  // namespace tessera
