#include "trainer/hugging_face/safetensors.h"

#include <ATen/ATen.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>

#include "datasets/strict_json.h"
#include "recipes/error.h"

namespace tessera {
namespace {

using nlohmann::ordered_json;

static_assert(std::endian::native == std::endian::little, "safetensors are little-endian");

constexpr int64_t length_bytes = 8;
constexpr int64_t longest_header = 100'000'000;  // as the reference implementation

struct TypeName {
  const char* name;
  at::ScalarType type;
};
/// In the order in which the reference writes them.
constexpr std::array<TypeName, 10> types{{{"I64", at::kLong},
                                          {"F64", at::kDouble},
                                          {"F32", at::kFloat},
                                          {"I32", at::kInt},
                                          {"BF16", at::kBFloat16},
                                          {"F16", at::kHalf},
                                          {"I16", at::kShort},
                                          {"I8", at::kChar},
                                          {"U8", at::kByte},
                                          {"BOOL", at::kBool}}};

std::string type_names() {
  std::vector<std::string> names;
  for (const auto& each : types) names.emplace_back(each.name);
  return join(names);
}

/// A whole number from 0 to `most`; -1 for anything else.
int64_t whole_number(const ordered_json& value, int64_t most) {
  if (!value.is_number_unsigned()) return -1;
  const auto number = value.get<uint64_t>();
  return number <= static_cast<uint64_t>(most) ? static_cast<int64_t>(number) : -1;
}

/// Reads one tensor's entry; `bytes`: of the whole buffer.
class EntryReader {
 public:
  EntryReader(const std::string& path, const std::string& name, const ordered_json& entry, int64_t bytes)
      : where_(fmt::format("{}: tensor '{}'", path, name)), entry_(entry), bytes_(bytes) {}

  SafetensorsFile::Entry read() const {
    if (!entry_.is_object()) fail("is no JSON object");
    for (const auto& [key, value] : entry_.items()) {
      if (key != "dtype" && key != "shape" && key != "data_offsets") {
        fail(fmt::format("unknown key '{}'; valid: dtype, shape, data_offsets", key));
      }
    }
    SafetensorsFile::Entry entry{read_type(), read_shape(), 0, 0};
    read_offsets(entry);
    return entry;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { throw Error(where_ + ": " + what); }

  const ordered_json& member(const char* key) const {
    const auto found = entry_.find(key);
    if (found == entry_.end()) fail(fmt::format("no {}", key));
    return *found;
  }

  at::ScalarType read_type() const {
    const ordered_json& name = member("dtype");
    for (const auto& each : types) {
      if (name == each.name) return each.type;
    }
    fail(fmt::format("dtype {} cannot be read; valid: {}", shown(name), type_names()));
  }

  std::vector<int64_t> read_shape() const {
    const ordered_json& sizes = member("shape");
    if (!sizes.is_array() || sizes.size() > 64) fail("its shape is no list of up to 64 sizes");
    std::vector<int64_t> shape;
    for (const auto& size : sizes) {
      shape.push_back(whole_number(size, std::numeric_limits<int64_t>::max()));
      if (shape.back() < 0) fail(fmt::format("its shape {} has a size that is no size", shown(sizes)));
    }
    return shape;
  }

  void read_offsets(SafetensorsFile::Entry& entry) const {
    const ordered_json& offsets = member("data_offsets");
    if (!offsets.is_array() || offsets.size() != 2) fail("its data_offsets are not [begin, end]");
    entry.begin = whole_number(offsets[0], bytes_);
    const int64_t end = whole_number(offsets[1], bytes_);
    if (entry.begin < 0 || end < entry.begin) {
      fail(fmt::format("its data_offsets {} are not in the buffer of {} bytes", shown(offsets), bytes_));
    }
    entry.bytes = end - entry.begin;
    if (expected_bytes(entry) != entry.bytes) {
      fail(fmt::format("{} of shape [{}] does not fill the {} bytes of its data_offsets",
                       c10::toString(entry.type), fmt::join(entry.shape, ", "), entry.bytes));
    }
  }

  /// -1 where that is more than any file has.
  static int64_t expected_bytes(const SafetensorsFile::Entry& entry) {
    auto bytes = static_cast<int64_t>(c10::elementSize(entry.type));
    for (const int64_t size : entry.shape) {
      if (__builtin_mul_overflow(bytes, size, &bytes)) return -1;
    }
    return bytes;
  }

  std::string where_;
  const ordered_json& entry_;
  int64_t bytes_;
};

void check_no_gaps(const std::string& path, const std::map<std::string, SafetensorsFile::Entry>& entries,
                   int64_t bytes) {
  std::vector<std::pair<const std::string*, const SafetensorsFile::Entry*>> order;
  for (const auto& [name, entry] : entries) order.emplace_back(&name, &entry);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->bytes) < std::pair(b.second->begin, b.second->bytes);
  });
  int64_t end = 0;
  for (const auto& [name, entry] : order) {
    if (entry->begin != end) {
      throw Error(
          fmt::format("{}: tensor '{}' begins at byte {} of the buffer, where {} was expected: tensors {}",
                      path, *name, entry->begin, end, entry->begin < end ? "overlap" : "leave a hole"));
    }
    end += entry->bytes;
  }
  if (end != bytes) {
    throw Error(fmt::format("{}: its tensors fill {} of the buffer's {} bytes{}", path, end, bytes,
                            end > bytes ? ": truncated?" : ""));
  }
}

std::map<std::string, std::string> read_metadata(const std::string& path, const ordered_json& json) {
  std::map<std::string, std::string> metadata;
  if (!json.is_object()) throw Error(path + ": its __metadata__ is no JSON object");
  for (const auto& [key, value] : json.items()) {
    if (!value.is_string()) throw Error(fmt::format("{}: __metadata__ '{}' is no text", path, key));
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

std::string read_header(const std::string& path, const OpenFile& file) {
  const int64_t size = file.size();
  uint64_t length = 0;
  if (size < length_bytes) throw Error(fmt::format("{}: {} bytes are no safetensors file", path, size));
  file.read(0, &length, length_bytes);
  if (length > static_cast<uint64_t>(std::min(size - length_bytes, longest_header))) {
    throw Error(
        fmt::format("{}: a header of {} bytes is not in its {} bytes (at most {}): truncated, or no "
                    "safetensors file",
                    path, length, size, longest_header));
  }
  std::string header(length, '\0');
  file.read(length_bytes, header.data(), static_cast<int64_t>(length));
  return header;
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::string& path) {
  SafetensorsFile opened(path, OpenFile(path, O_RDONLY));
  const std::string header = read_header(path, opened.file_);
  const int64_t buffer = length_bytes + static_cast<int64_t>(header.size());
  const int64_t bytes = opened.file_.size() - buffer;
  const ordered_json json = parse_strict_json(header, path + ": header");
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") {
      opened.metadata_ = read_metadata(path, entry);
    } else {
      opened.entries_.emplace(name, EntryReader(path, name, entry, bytes).read());
    }
  }
  check_no_gaps(path, opened.entries_, bytes);
  for (auto& [name, entry] : opened.entries_) entry.begin += buffer;
  return opened;
}

at::Tensor SafetensorsFile::read(const std::string& name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    std::vector<std::string> names;
    for (const auto& [there, entry] : entries_) names.push_back(there);
    const std::string near = nearest(name, names);
    throw Error(fmt::format("{}: no tensor '{}' among its {}{}", path_, name, names.size(),
                            near.empty() ? "" : "; did you mean '" + near + "'?"));
  }
  const Entry& entry = found->second;
  at::Tensor tensor = at::empty(entry.shape, entry.type);
  if (entry.bytes > 0) file_.read(entry.begin, tensor.mutable_data_ptr(), entry.bytes);
  return tensor;
}

namespace {

size_t type_index(const NamedTensor& each) {
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i].type == each.tensor.scalar_type()) return i;
  }
  throw Error(fmt::format("safetensors: tensor '{}' is of type {}, which cannot be stored; valid: {}",
                          each.name, c10::toString(each.tensor.scalar_type()), type_names()));
}

std::string header_of(const std::vector<NamedTensor>& tensors,
                      const std::map<std::string, std::string>& metadata) {
  ordered_json header = ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t end = 0;
  for (const auto& each : tensors) {
    const int64_t begin = std::exchange(end, end + static_cast<int64_t>(each.tensor.nbytes()));
    header[each.name] = ordered_json{{"dtype", types[type_index(each)].name},
                                     {"shape", each.tensor.sizes().vec()},
                                     {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  return text;
}

}  // namespace

void write_safetensors(const std::string& path, std::vector<NamedTensor> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::sort(tensors.begin(), tensors.end(), [](const NamedTensor& a, const NamedTensor& b) {
    return std::pair(type_index(a), a.name) < std::pair(type_index(b), b.name);
  });
  const std::string header = header_of(tensors, metadata);
  const std::string temporary = path + ".part";
  try {
    OpenFile file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
    const uint64_t length = header.size();
    file.write(0, &length, length_bytes);
    file.write(length_bytes, header.data(), static_cast<int64_t>(length));
    int64_t at = length_bytes + static_cast<int64_t>(length);
    for (const auto& each : tensors) {
      const at::Tensor values = each.tensor.detach().contiguous();
      file.write(at, values.const_data_ptr(), static_cast<int64_t>(values.nbytes()));
      at += static_cast<int64_t>(values.nbytes());
    }
    file.sync();
    if (std::rename(temporary.c_str(), path.c_str()) != 0) fail_with_reason(path, "cannot be replaced");
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

}  // namespace tessera
