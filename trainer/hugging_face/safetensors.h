#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>
#include <vector>

#include "trainer/files.h"

namespace tessera {

/// A safetensors file, open for reading. Its header is checked whole when it is opened: a length that fits
/// the file, well-formed JSON without duplicate keys, known types, shapes that match their bytes, and tensors
/// that fill the buffer without holes or overlap (the format's definition, huggingface/safetensors).
class SafetensorsFile {
 public:
  struct Entry {
    at::ScalarType type;
    std::vector<int64_t> shape;
    int64_t begin = 0;  ///< in the file
    int64_t bytes = 0;
  };

  /// Errors: Error naming the file, the key and what is wrong. Memory used is bounded by the header's length,
  /// which must be in the file and at most 100 MB.
  static SafetensorsFile open(const std::string& path);

  const std::string& path() const { return path_; }
  const std::map<std::string, Entry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  /// A tensor on the CPU, of the type and shape in the file. Errors: Error for a name that is not there, or a
  /// file that has been cut since it was opened.
  at::Tensor read(const std::string& name) const;

 private:
  SafetensorsFile(std::string path, OpenFile file) : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;
  OpenFile file_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

struct NamedTensor {
  std::string name;
  at::Tensor tensor;
};

/// Writes tensors (CPU, any strides) as Hugging Face's writer orders and pads them: by type, widest first,
/// then by name; the header filled up with spaces to a multiple of 8. Durable on return; a file of that name
/// gives way at once or stays as it is. Errors: Error naming the path and the reason.
void write_safetensors(const std::string& path, std::vector<NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

}  // namespace tessera
