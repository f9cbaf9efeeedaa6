#include "datasets/hdf5_handle.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <mutex>

#include "recipes/error.h"

namespace tessera::hdf5 {
namespace {

herr_t collect(unsigned, const H5E_error2_t* error, void* texts) {
  static_cast<std::vector<std::string>*>(texts)->emplace_back(error->desc ? error->desc : "");
  return 0;
}

}  // namespace

void silence() {
  static std::once_flag once;
  // A file that could not be flushed (full disk) stays open inside HDF5; at exit it would try again, and
  // complain.
  std::call_once(once, [] { H5dont_atexit(); });
  static thread_local const bool done = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
  static_cast<void>(done);
}

std::string reason() {
  std::vector<std::string> texts;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &texts);
  static const std::string marker = "error message = '";
  for (const auto& text : texts) {
    const size_t start = text.find(marker);
    if (start == std::string::npos) continue;
    const size_t begin = start + marker.size();
    return text.substr(begin, text.find('\'', begin) - begin);
  }
  return texts.empty() ? "unknown reason" : texts.front();
}

void fail(const std::string& file, const std::string& what) {
  throw Error(fmt::format("{}: {}: {}", file, what, reason()));
}

Handle memory_type(Type type) {
  const auto native = [](hid_t id) { return Handle(H5Tcopy(id), H5Tclose); };
  switch (type) {
    case Type::i8:
      return native(H5T_NATIVE_INT8);
    case Type::u8:
      return native(H5T_NATIVE_UINT8);
    case Type::i16:
      return native(H5T_NATIVE_INT16);
    case Type::u16:
      return native(H5T_NATIVE_UINT16);
    case Type::i32:
      return native(H5T_NATIVE_INT32);
    case Type::u32:
      return native(H5T_NATIVE_UINT32);
    case Type::i64:
      return native(H5T_NATIVE_INT64);
    case Type::u64:
      return native(H5T_NATIVE_UINT64);
    case Type::f32:
      return native(H5T_NATIVE_FLOAT);
    case Type::f64:
      return native(H5T_NATIVE_DOUBLE);
    case Type::f16:
    case Type::bf16:
      break;
  }
  const int exponent = type == Type::f16 ? 5 : 8;
  const int mantissa = 15 - exponent;
  Handle small = native(H5T_IEEE_F32LE);
  H5Tset_fields(small, 15, mantissa, exponent, 0, mantissa);
  H5Tset_size(small, 2);
  H5Tset_ebias(small, type == Type::f16 ? 15 : 127);
  return small;
}

Type type_of(hid_t stored, const std::string& file, const std::string& name) {
  const H5T_class_t kind = H5Tget_class(stored);
  const size_t size = H5Tget_size(stored);
  if (kind == H5T_VLEN || kind == H5T_ENUM)
    return type_of(Handle(H5Tget_super(stored), H5Tclose), file, name);
  if (kind == H5T_STRING) return Type::u8;
  if (kind == H5T_INTEGER) {
    const bool is_signed = H5Tget_sign(stored) == H5T_SGN_2;
    switch (size) {
      case 1:
        return is_signed ? Type::i8 : Type::u8;
      case 2:
        return is_signed ? Type::i16 : Type::u16;
      case 4:
        return is_signed ? Type::i32 : Type::u32;
      case 8:
        return is_signed ? Type::i64 : Type::u64;
      default:
        break;
    }
  }
  if (kind == H5T_FLOAT) {
    if (size == 2) return H5Tget_ebias(stored) == 127 ? Type::bf16 : Type::f16;
    if (size == 4) return Type::f32;
    if (size == 8) return Type::f64;
  }
  throw Error(fmt::format(
      "{}: dataset '{}' holds elements ({} bytes) that are neither integers nor floats of 1 to 8 bytes", file,
      name, size));
}

Handle space_of(const std::vector<int64_t>& shape) {
  const std::vector<hsize_t> extent(shape.begin(), shape.end());
  return {
      shape.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(int(extent.size()), extent.data(), nullptr),
      H5Sclose};
}

Handle text_type(size_t bytes) {
  Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type, std::max<size_t>(bytes, 1));
  H5Tset_strpad(type, H5T_STR_NULLPAD);
  H5Tset_cset(type, H5T_CSET_UTF8);
  return type;
}

std::string in_words(const std::vector<int64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

size_t size_of(Type type) {
  switch (type) {
    case Type::i8:
    case Type::u8:
      return 1;
    case Type::i16:
    case Type::u16:
    case Type::f16:
    case Type::bf16:
      return 2;
    case Type::i32:
    case Type::u32:
    case Type::f32:
      return 4;
    default:
      return 8;
  }
}

const char* name_of(Type type) {
  static constexpr const char* names[] = {"i8",  "u8",  "i16", "u16",  "i32", "u32",
                                          "i64", "u64", "f16", "bf16", "f32", "f64"};
  return names[static_cast<int>(type)];
}

}  // namespace tessera::hdf5
