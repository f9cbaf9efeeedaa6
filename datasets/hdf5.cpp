#include "datasets/hdf5.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "datasets/hdf5_handle.h"
#include "recipes/error.h"

namespace tessera::hdf5 {
namespace {

Handle file_access() {
  Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_libver_bounds(access, H5F_LIBVER_EARLIEST, H5F_LIBVER_V110);
  // Locks fail on many network file systems and guard nothing here: our files are written once, then renamed.
  H5Pset_file_locking(access, false, true);
  H5Pset_alignment(access, 1 << 16, 4096);  // whole pages for what is worth mapping
  return access;
}

std::vector<std::string> names_in(hid_t file, const std::string& group) {
  std::vector<std::string> names;
  Handle opened(H5Gopen2(file, group.c_str(), H5P_DEFAULT), H5Gclose);
  if (opened < 0) return names;
  const auto add = [](hid_t, const char* name, const H5L_info_t*, void* to) -> herr_t {
    static_cast<std::vector<std::string>*>(to)->emplace_back(name);
    return 0;
  };
  H5Literate(opened, H5_INDEX_NAME, H5_ITER_INC, nullptr, add, &names);
  return names;
}

Handle open_dataset(const File& file, hid_t id, const std::string& name) {
  silence();
  if (file.exists(name)) {
    return {check(H5Dopen2(id, name.c_str(), H5P_DEFAULT), file.path(),
                  fmt::format("cannot open dataset '{}'", name)),
            H5Dclose};
  }
  const auto there = file.list_datasets();
  if (there.size() <= 20)
    throw Error(fmt::format("{}: no dataset '{}'{}", file.path(), name, valid_names(name, there)));
  const std::string near = nearest(name, there);
  throw Error(fmt::format("{}: no dataset '{}' among its {} datasets{}", file.path(), name, there.size(),
                          near.empty() ? "" : "; did you mean '" + near + "'?"));
}

std::vector<int64_t> shape_of(hid_t dataset) {
  Handle space(H5Dget_space(dataset), H5Sclose);
  std::vector<hsize_t> extent(std::max(0, H5Sget_simple_extent_ndims(space)));
  H5Sget_simple_extent_dims(space, extent.data(), nullptr);
  return {extent.begin(), extent.end()};
}

/// The dataset's space with a rectangle selected; Error where that lies outside.
Handle select(const std::string& file, const std::string& name, hid_t dataset,
              const std::vector<int64_t>& offset, const std::vector<int64_t>& shape) {
  const auto whole = shape_of(dataset);
  bool inside = offset.size() == whole.size() && shape.size() == whole.size();
  for (size_t dim = 0; inside && dim < whole.size(); ++dim) {
    inside = offset[dim] >= 0 && shape[dim] >= 0 && offset[dim] <= whole[dim] - shape[dim];
  }
  if (!inside) {
    throw Error(fmt::format("{}: dataset '{}' has shape {}: no rectangle {} at {} in it", file, name,
                            in_words(whole), in_words(shape), in_words(offset)));
  }
  Handle space(H5Dget_space(dataset), H5Sclose);
  if (whole.empty()) return space;
  const std::vector<hsize_t> start(offset.begin(), offset.end()), count(shape.begin(), shape.end());
  if (std::count(shape.begin(), shape.end(), 0)) {
    H5Sselect_none(space);
  } else {
    check(H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr), file,
          fmt::format("cannot select in dataset '{}'", name));
  }
  return space;
}

Handle linking() {
  Handle link(H5Pcreate(H5P_LINK_CREATE), H5Pclose);
  H5Pset_create_intermediate_group(link, 1);
  return link;
}

Handle make_dataset(hid_t file, const std::string& path, const std::string& name, hid_t type, hid_t space,
                    hid_t creation) {
  silence();
  return {check(H5Dcreate2(file, name.c_str(), type, space, linking(), creation, H5P_DEFAULT), path,
                fmt::format("cannot make dataset '{}'", name)),
          H5Dclose};
}

/// Space is taken at once, so that file_offset is known, and not filled with zeros first.
Handle contiguous() {
  Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation, false);  // equal content makes equal files
  H5Pset_layout(creation, H5D_CONTIGUOUS);
  H5Pset_alloc_time(creation, H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);
  return creation;
}

}  // namespace

File::File(int64_t id, std::string path) : id_(id), path_(std::move(path)) {}
File::File(File&& other) noexcept : id_(std::exchange(other.id_, -1)), path_(std::move(other.path_)) {}
File& File::operator=(File&& other) noexcept {
  std::swap(id_, other.id_);
  std::swap(path_, other.path_);
  return *this;
}
File::~File() {
  silence();
  if (id_ >= 0) H5Fclose(id_);
}

File File::create(const std::string& path, int64_t user_block) {
  silence();
  Handle creation(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_userblock(creation, hsize_t(user_block));
  return {check(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, creation, file_access()), path, "cannot be made"),
          path};
}

File File::open_as(const std::string& path, unsigned flags) {
  silence();
  std::error_code ignored;
  const auto status = std::filesystem::status(path, ignored);
  if (!std::filesystem::exists(status)) throw Error(path + ": no such file");
  if (std::filesystem::is_directory(status)) throw Error(path + ": is a folder, not an HDF5 file");
  const Handle access = file_access();
  const hid_t id = H5Fopen(path.c_str(), flags, access);
  if (id < 0) {
    const std::string why = reason();
    // HDF5 1.10 answers 0 only for readable files without its signature.
    if (H5Fis_hdf5(path.c_str()) == 0) throw Error(path + ": not an HDF5 file");
    throw Error(fmt::format("{}: cannot be opened: {}", path, why));
  }
  return {id, path};
}

File File::open(const std::string& path) { return open_as(path, H5F_ACC_RDONLY); }
File File::append(const std::string& path) { return open_as(path, H5F_ACC_RDWR); }

void File::close() {
  silence();
  if (id_ < 0) return;
  check(H5Fclose(hid_t(std::exchange(id_, -1))), path_, "cannot be written");
}

const std::string& File::path() const { return path_; }

bool File::exists(const std::string& name) const {
  silence();
  if (name.empty() || name == "/") return true;
  // H5Lexists fails where a group on the way is missing, so ask step by step.
  for (size_t end = name.find('/', 1); end != std::string::npos; end = name.find('/', end + 1)) {
    if (H5Lexists(id_, name.substr(0, end).c_str(), H5P_DEFAULT) <= 0) return false;
  }
  return H5Lexists(id_, name.c_str(), H5P_DEFAULT) > 0;
}

std::vector<std::string> File::list(const std::string& group) const {
  silence();
  auto names = names_in(id_, group);
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<std::string> File::list_datasets(const std::string& group) const {
  std::vector<std::string> found;
  for (const auto& name : list(group)) {
    const std::string full = (group == "/" ? "" : group) + "/" + name;
    H5O_info_t about;
    if (H5Oget_info_by_name2(id_, full.c_str(), &about, H5O_INFO_BASIC, H5P_DEFAULT) < 0) continue;
    if (about.type == H5O_TYPE_DATASET) found.push_back(full);
    if (about.type != H5O_TYPE_GROUP) continue;
    for (auto& below : list_datasets(full)) found.push_back(std::move(below));
  }
  return found;
}

DatasetInfo File::info(const std::string& name) const {
  Handle dataset = open_dataset(*this, id_, name);
  Handle type(H5Dget_type(dataset), H5Tclose), creation(H5Dget_create_plist(dataset), H5Pclose);
  DatasetInfo info{.type = type_of(type, path_, name), .shape = shape_of(dataset)};
  info.variable_length = H5Tget_class(type) == H5T_VLEN;
  info.text = H5Tget_class(type) == H5T_STRING;
  if (info.text && H5Tis_variable_str(type) <= 0) info.shape = {int64_t(H5Tget_size(type))};
  const haddr_t offset = H5Pget_layout(creation) == H5D_CONTIGUOUS ? H5Dget_offset(dataset) : HADDR_UNDEF;
  if (offset != HADDR_UNDEF && H5Tget_order(type) != H5T_ORDER_BE) info.file_offset = int64_t(offset);
  return info;
}

void File::reserve(const std::string& name, Type type, const std::vector<int64_t>& shape) {
  make_dataset(id_, path_, name, memory_type(type), space_of(shape), contiguous());
}

void File::write(const std::string& name, Type type, const std::vector<int64_t>& shape, const void* data) {
  reserve(name, type, shape);
  write_slice(name, std::vector<int64_t>(shape.size(), 0), shape, data);
}

void File::write_slice(const std::string& name, const std::vector<int64_t>& offset,
                       const std::vector<int64_t>& shape, const void* data) {
  Handle dataset = open_dataset(*this, id_, name);
  Handle type(H5Dget_type(dataset), H5Tclose);
  Handle target = select(path_, name, dataset, offset, shape);
  if (std::count(shape.begin(), shape.end(), 0)) return;
  check(H5Dwrite(dataset, type, space_of(shape), target, H5P_DEFAULT, data), path_,
        fmt::format("cannot write dataset '{}'", name));
}

void File::reserve_growing(const std::string& name, Type type, int64_t chunk) {
  silence();
  Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation, false);  // equal content makes equal files
  const hsize_t none = 0, unlimited = H5S_UNLIMITED, portion = hsize_t(chunk);
  H5Pset_chunk(creation, 1, &portion);
  H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER);
  Handle space(H5Screate_simple(1, &none, &unlimited), H5Sclose);
  make_dataset(id_, path_, name, memory_type(type), space, creation);
}

void File::append_values(const std::string& name, std::span<const std::byte> values) {
  Handle dataset = open_dataset(*this, id_, name);
  Handle type(H5Dget_type(dataset), H5Tclose);
  const int64_t old = shape_of(dataset).at(0), more = int64_t(values.size() / H5Tget_size(type));
  const hsize_t extent = hsize_t(old) + hsize_t(more);
  check(H5Dset_extent(dataset, &extent), path_, fmt::format("cannot extend dataset '{}'", name));
  Handle target = select(path_, name, dataset, {old}, {more});
  if (more == 0) return;
  check(H5Dwrite(dataset, type, space_of({more}), target, H5P_DEFAULT, values.data()), path_,
        fmt::format("cannot append to dataset '{}'", name));
}

void File::write_virtual(const std::string& name, Type type, const std::vector<int64_t>& shape,
                         const std::vector<Piece>& pieces) {
  silence();
  Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(creation, false);  // equal content makes equal files
  Handle space = space_of(shape);
  for (const auto& piece : pieces) {
    const std::vector<hsize_t> start(piece.offset.begin(), piece.offset.end());
    const std::vector<hsize_t> count(piece.shape.begin(), piece.shape.end());
    if (!shape.empty()) {
      check(H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr), path_,
            name);
    }
    check(H5Pset_virtual(creation, space, piece.file.c_str(), piece.path.c_str(), space_of(piece.shape)),
          path_,
          fmt::format("cannot place a piece of {} at {} in dataset '{}'", piece.file, in_words(piece.offset),
                      name));
  }
  H5Sselect_all(space);
  make_dataset(id_, path_, name, memory_type(type), space, creation);
}

void File::read(const std::string& name, Type type, void* data) const {
  Handle dataset = open_dataset(*this, id_, name);
  check(H5Dread(dataset, memory_type(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data), path_,
        fmt::format("cannot read dataset '{}'", name));
}

void File::read_slice(const std::string& name, Type type, const std::vector<int64_t>& offset,
                      const std::vector<int64_t>& shape, void* data) const {
  Handle dataset = open_dataset(*this, id_, name);
  Handle source = select(path_, name, dataset, offset, shape);
  if (std::count(shape.begin(), shape.end(), 0)) return;
  check(H5Dread(dataset, memory_type(type), space_of(shape), source, H5P_DEFAULT, data), path_,
        fmt::format("cannot read dataset '{}'", name));
}

std::vector<int64_t> File::read_variable_row(const std::string& name, int64_t row) const {
  return std::move(read_variable_rows(name, row, 1)[0]);
}

std::vector<std::vector<int64_t>> File::read_variable_rows(const std::string& name, int64_t row,
                                                           int64_t count) const {
  Handle dataset = open_dataset(*this, id_, name);
  Handle stored(H5Dget_type(dataset), H5Tclose);
  if (H5Tget_class(stored) != H5T_VLEN)
    throw Error(fmt::format("{}: '{}' has no rows of varying length", path_, name));
  Handle type(H5Tvlen_create(H5T_NATIVE_INT64), H5Tclose);
  Handle source = select(path_, name, dataset, {row}, {count});
  Handle rows = space_of({count});
  std::vector<hvl_t> values(count);
  check(H5Dread(dataset, type, rows, source, H5P_DEFAULT, values.data()), path_,
        fmt::format("cannot read row {} of dataset '{}'", row, name));
  std::vector<std::vector<int64_t>> result;
  for (const hvl_t& value : values) {
    const auto* first = static_cast<const int64_t*>(value.p);
    result.emplace_back(first, first + value.len);
  }
  H5Dvlen_reclaim(type, rows, H5P_DEFAULT, values.data());
  return result;
}

}  // namespace tessera::hdf5
