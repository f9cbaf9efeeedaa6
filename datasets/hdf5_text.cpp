// Texts and attributes of HDF5 files.
#include <fmt/format.h>

#include "datasets/hdf5.h"
#include "datasets/hdf5_handle.h"
#include "recipes/error.h"

namespace tessera::hdf5 {
namespace {

/// Reads a string of either kind: `read` fetches it into memory as the given type.
template <typename Read>
std::string read_string(hid_t stored, Read read) {
  if (H5Tis_variable_str(stored) > 0) {
    char* text = nullptr;
    read(stored, &text);
    std::string result = text ? text : "";
    H5free_memory(text);
    return result;
  }
  std::string result(H5Tget_size(stored), '\0');
  read(stored, result.data());
  result.erase(result.find_last_not_of('\0') + 1);
  return result;
}

void write_attribute(hid_t file, const std::string& path, const std::string& object, const std::string& name,
                     hid_t type, const void* value) {
  silence();
  const std::string what = fmt::format("cannot write attribute '{}' of '{}'", name, object);
  Handle opened(check(H5Oopen(file, object.c_str(), H5P_DEFAULT), path, what), H5Oclose);
  if (H5Aexists(opened, name.c_str()) > 0) check(H5Adelete(opened, name.c_str()), path, what);
  Handle attribute(
      check(H5Acreate2(opened, name.c_str(), type, space_of({}), H5P_DEFAULT, H5P_DEFAULT), path, what),
      H5Aclose);
  check(H5Awrite(attribute, type, value), path, what);
}

Handle open_attribute(hid_t file, const std::string& path, const std::string& object,
                      const std::string& name) {
  silence();
  return {check(H5Aopen_by_name(file, object.c_str(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT), path,
                fmt::format("no attribute '{}' at '{}'", name, object)),
          H5Aclose};
}

template <typename T>
T read_number(hid_t file, const std::string& path, const std::string& object, const std::string& name,
              hid_t type) {
  Handle attribute = open_attribute(file, path, object, name);
  Handle space(H5Aget_space(attribute), H5Sclose);
  if (H5Sget_simple_extent_npoints(space) != 1) {
    throw Error(fmt::format("{}: attribute '{}' of '{}' is not one number", path, name, object));
  }
  T value{};
  check(H5Aread(attribute, type, &value), path,
        fmt::format("attribute '{}' of '{}' is not a number", name, object));
  return value;
}

}  // namespace

void File::set_attribute(const std::string& object, const std::string& name, const std::string& value) {
  write_attribute(id_, path_, object, name, text_type(value.size()), value.c_str());
}
void File::set_attribute(const std::string& object, const std::string& name, int64_t value) {
  write_attribute(id_, path_, object, name, H5T_NATIVE_INT64, &value);
}
void File::set_attribute(const std::string& object, const std::string& name, double value) {
  write_attribute(id_, path_, object, name, H5T_NATIVE_DOUBLE, &value);
}

bool File::has_attribute(const std::string& object, const std::string& name) const {
  silence();
  return exists(object) && H5Aexists_by_name(id_, object.c_str(), name.c_str(), H5P_DEFAULT) > 0;
}

std::string File::text_attribute(const std::string& object, const std::string& name) const {
  Handle attribute = open_attribute(id_, path_, object, name);
  Handle type(H5Aget_type(attribute), H5Tclose);
  const std::string what = fmt::format("attribute '{}' of '{}' is not one text", name, object);
  Handle space(H5Aget_space(attribute), H5Sclose);
  if (H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1)
    throw Error(path_ + ": " + what);
  return read_string(type,
                     [&](hid_t memory, void* data) { check(H5Aread(attribute, memory, data), path_, what); });
}

int64_t File::integer_attribute(const std::string& object, const std::string& name) const {
  return read_number<int64_t>(id_, path_, object, name, H5T_NATIVE_INT64);
}
double File::real_attribute(const std::string& object, const std::string& name) const {
  return read_number<double>(id_, path_, object, name, H5T_NATIVE_DOUBLE);
}

void File::write_text(const std::string& name, const std::string& text) {
  silence();
  const std::string what = fmt::format("cannot write text '{}'", name);
  Handle type = text_type(text.size());
  Handle link(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(link, 1);
  Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation, false);  // equal content makes equal files
  Handle dataset(
      check(H5Dcreate2(id_, name.c_str(), type, space_of({}), link, creation, H5P_DEFAULT), path_, what),
      H5Dclose);
  check(H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, text.c_str()), path_, what);
}

std::string File::read_text(const std::string& name) const {
  const auto about = info(name);
  const std::string what = fmt::format("dataset '{}' is not one text", name);
  Handle dataset(check(H5Dopen2(id_, name.c_str(), H5P_DEFAULT), path_, what), H5Dclose);
  Handle type(H5Dget_type(dataset), H5Tclose), space(H5Dget_space(dataset), H5Sclose);
  if (!about.text || H5Sget_simple_extent_npoints(space) != 1) throw Error(path_ + ": " + what);
  return read_string(type, [&](hid_t memory, void* data) {
    check(H5Dread(dataset, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), path_, what);
  });
}

}  // namespace tessera::hdf5
