#pragma once
#include <concepts>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace tessera::hdf5 {

/// Element types that we store. bfloat16 is stored as a custom 16-bit float type (8-bit exponent), which h5py
/// reads as such or as raw 16 bits.
enum class Type { i8, u8, i16, u16, i32, u32, i64, u64, f16, bf16, f32, f64 };
size_t size_of(Type type);
const char* name_of(Type type);

struct DatasetInfo {
  Type type;
  std::vector<int64_t> shape;
  int64_t file_offset =
      -1;  ///< byte offset of a contiguous dataset in its file (for memory mapping), else -1
  bool variable_length = false;
  bool text = false;  ///< a text as write_text() makes: type u8, shape [bytes]
};

/// One rectangle of a virtual dataset: lies in `file` (relative to the virtual dataset's folder) under
/// `path`, whole, and covers [offset, offset + shape) of the virtual dataset.
struct Piece {
  std::string file;
  std::string path;
  std::vector<int64_t> offset;
  std::vector<int64_t> shape;
};

/// An open HDF5 file; move-only. All names are absolute paths inside the file ("/model/embeddings.weight"),
/// groups are made as needed. Files are written with library bounds (earliest, v110). HDF5's own error stack
/// is silenced; every failure is an Error that names file and dataset, also for missing, truncated and
/// foreign files, and a full disk.
class File {
 public:
  /// Truncates. The first `user_block` bytes (0, or a power of two from 4096) are left to the caller: HDF5
  /// skips them.
  static File create(const std::string& path, int64_t user_block = 0);
  static File open(const std::string& path);    ///< read-only
  static File append(const std::string& path);  ///< read-write, must exist
  File(File&&) noexcept;
  File& operator=(File&&) noexcept;
  ~File();
  void close();  ///< flushes and closes; throws where the destructor could not

  const std::string& path() const;
  bool exists(const std::string& name) const;
  std::vector<std::string> list(const std::string& group) const;  ///< names in a group, sorted
  std::vector<std::string> list_datasets(
      const std::string& group = "/") const;  ///< absolute paths, recursively
  DatasetInfo info(const std::string& name) const;

  /// Writes a whole contiguous dataset. Scalars have an empty shape.
  void write(const std::string& name, Type type, const std::vector<int64_t>& shape, const void* data);
  /// Makes a contiguous dataset to be filled by write_slice(), or from outside at info().file_offset after
  /// close().
  void reserve(const std::string& name, Type type, const std::vector<int64_t>& shape);
  void write_slice(const std::string& name, const std::vector<int64_t>& offset,
                   const std::vector<int64_t>& shape, const void* data);
  /// Makes a one-dimensional growing (chunked) dataset; append_values() adds to its end
  /// (thousands of values a call: each opens and closes the dataset).
  void reserve_growing(const std::string& name, Type type, int64_t chunk = 1 << 16);
  void append_values(const std::string& name, std::span<const std::byte> values);
  /// Makes a dataset of `shape` stitched from pieces in other files. Readers see zeros where a file is
  /// missing: check.
  void write_virtual(const std::string& name, Type type, const std::vector<int64_t>& shape,
                     const std::vector<Piece>& pieces);

  /// Reads a whole dataset or a rectangle into `data`, converted to `type` by HDF5 where the stored type
  /// differs.
  void read(const std::string& name, Type type, void* data) const;
  void read_slice(const std::string& name, Type type, const std::vector<int64_t>& offset,
                  const std::vector<int64_t>& shape, void* data) const;
  /// Row `row`, or `count` rows from it on, of a dataset of variable-length integer rows.
  std::vector<int64_t> read_variable_row(const std::string& name, int64_t row) const;
  std::vector<std::vector<int64_t>> read_variable_rows(const std::string& name, int64_t row,
                                                       int64_t count) const;

  void set_attribute(const std::string& object, const std::string& name, const std::string& value);
  void set_attribute(const std::string& object, const std::string& name, int64_t value);
  void set_attribute(const std::string& object, const std::string& name, double value);
  template <std::integral T>
  void set_attribute(const std::string& object, const std::string& name, T value) {
    set_attribute(object, name, static_cast<int64_t>(value));
  }
  bool has_attribute(const std::string& object, const std::string& name) const;
  std::string text_attribute(const std::string& object, const std::string& name) const;
  int64_t integer_attribute(const std::string& object, const std::string& name) const;
  double real_attribute(const std::string& object, const std::string& name) const;

  /// Long texts (recipe, tokenizer.json) as byte datasets readable as a string by h5py.
  void write_text(const std::string& name, const std::string& text);
  std::string read_text(const std::string& name) const;

 private:
  File(int64_t id, std::string path);
  static File open_as(const std::string& path, unsigned flags);
  int64_t id_ = -1;
  std::string path_;
};

}  // namespace tessera::hdf5
