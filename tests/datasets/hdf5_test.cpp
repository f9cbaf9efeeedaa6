#include "datasets/hdf5.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/resource.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>

#include "recipes/error.h"

namespace tessera::hdf5 {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using Shape = std::vector<int64_t>;

class Hdf5 : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / ("tessera-hdf5-" + std::to_string(getpid()));
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string at(const std::string& name) const { return folder_ / name; }
  template <typename Action>
  std::string error_of(Action action) const {
    try {
      action();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  fs::path folder_;
};

template <typename T>
std::vector<T> counting(size_t n) {
  std::vector<T> values(n);
  std::iota(values.begin(), values.end(), T(0));
  return values;
}

TEST_F(Hdf5, GivesBackWhatWasWritten) {
  const auto values = counting<int32_t>(12);
  const double scalar = 2.5;
  {
    auto file = File::create(at("a.h5"));
    file.write("/deep/down/numbers", Type::i32, {3, 4}, values.data());
    file.write("/scalar", Type::f64, {}, &scalar);
    file.write("/empty", Type::u16, {0, 5}, nullptr);
    file.close();
  }
  const auto file = File::open(at("a.h5"));
  std::vector<int64_t> wider(12);
  file.read("/deep/down/numbers", Type::i64, wider.data());
  EXPECT_EQ(wider, counting<int64_t>(12));
  double read = 0;
  file.read("/scalar", Type::f64, &read);
  EXPECT_EQ(read, scalar);
  EXPECT_EQ(file.info("/empty").shape, (Shape{0, 5}));
  EXPECT_EQ(file.info("/deep/down/numbers").type, Type::i32);
  EXPECT_THAT(file.list_datasets(), ::testing::ElementsAre("/deep/down/numbers", "/empty", "/scalar"));
  EXPECT_THAT(file.list("/"), ::testing::ElementsAre("deep", "empty", "scalar"));
  EXPECT_TRUE(file.exists("/deep/down"));
  EXPECT_FALSE(file.exists("/deep/up/numbers"));
}

TEST_F(Hdf5, KeepsEveryType) {
  const std::vector<char> zeros(16);
  auto file = File::create(at("types.h5"));
  for (int i = 0; i <= int(Type::f64); ++i) {
    const auto type = Type(i);
    file.write(std::string("/") + name_of(type), type, {2}, zeros.data());
    EXPECT_EQ(file.info(std::string("/") + name_of(type)).type, type) << name_of(type);
  }
  const uint16_t one_and_a_half = 0x3fc0;  // bfloat16
  file.write("/brain", Type::bf16, {}, &one_and_a_half);
  float value = 0;
  file.read("/brain", Type::f32, &value);
  EXPECT_EQ(value, 1.5f);
}

TEST_F(Hdf5, DataLieWhereInfoSays) {
  const auto values = counting<uint16_t>(1000);
  for (const int64_t user_block : {0, 4096}) {
    auto file = File::create(at("map.h5"), user_block);
    file.write("/tokens", Type::u16, {1000}, values.data());
    file.reserve("/later", Type::u16, {1000});
    const auto offset = file.info("/tokens").file_offset, later = file.info("/later").file_offset;
    file.close();
    std::fstream raw(at("map.h5"), std::ios::in | std::ios::out | std::ios::binary);
    std::vector<uint16_t> read(1000);
    raw.seekg(offset).read(reinterpret_cast<char*>(read.data()), 2000);
    EXPECT_EQ(read, values);
    raw.seekp(later).write(reinterpret_cast<const char*>(values.data()), 2000);
    raw.close();
    File::open(at("map.h5")).read("/later", Type::u16, read.data());
    EXPECT_EQ(read, values);
  }
}

TEST_F(Hdf5, SlicesAreReadAndWritten) {
  auto file = File::create(at("slices.h5"));
  file.reserve("/table", Type::i64, {4, 3});
  const auto values = counting<int64_t>(12);
  file.write_slice("/table", {2, 0}, {2, 3}, values.data() + 6);
  file.write_slice("/table", {0, 0}, {2, 3}, values.data());
  std::vector<int64_t> column(3);
  file.read_slice("/table", Type::i64, {1, 2}, {3, 1}, column.data());
  EXPECT_EQ(column, (std::vector<int64_t>{5, 8, 11}));
  EXPECT_THAT(error_of([&] {
                file.read_slice("/table", Type::i64, {2, 0}, {3, 1}, column.data());
              }),
              HasSubstr("has shape [4, 3]: no rectangle [3, 1] at [2, 0]"));
  EXPECT_THAT(error_of([&] { file.read_slice("/table", Type::i64, {2}, {1}, column.data()); }),
              HasSubstr("[4, 3]"));
}

TEST_F(Hdf5, GrowsAtItsEnd) {
  auto file = File::create(at("grow.h5"));
  file.reserve_growing("/values", Type::i32, 16);
  const auto values = counting<int32_t>(100);
  for (const auto& [start, end] :
       std::vector<std::pair<size_t, size_t>>{{0, 10}, {10, 10}, {10, 55}, {55, 100}}) {
    file.append_values("/values", std::as_bytes(std::span(values).subspan(start, end - start)));
  }
  EXPECT_EQ(file.info("/values").shape, Shape{100});
  EXPECT_EQ(file.info("/values").file_offset, -1);
  std::vector<int32_t> read(100);
  file.read("/values", Type::i32, read.data());
  EXPECT_EQ(read, values);
}

TEST_F(Hdf5, ReadsRowsOfVaryingLength) {
  std::vector<int32_t> first = {1, 2, 3}, second = {-4};
  hvl_t rows[] = {{first.size(), first.data()}, {second.size(), second.data()}};
  const hsize_t extent = 2;
  const hid_t file = H5Fcreate(at("rows.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hid_t type = H5Tvlen_create(H5T_NATIVE_INT32), space = H5Screate_simple(1, &extent, nullptr);
  const hid_t set = H5Dcreate2(file, "rows", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, rows);
  H5Dclose(set), H5Sclose(space), H5Tclose(type), H5Fclose(file);
  const auto read = File::open(at("rows.h5"));
  EXPECT_TRUE(read.info("/rows").variable_length);
  EXPECT_EQ(read.info("/rows").type, Type::i32);
  EXPECT_EQ(read.read_variable_row("/rows", 0), (std::vector<int64_t>{1, 2, 3}));
  EXPECT_EQ(read.read_variable_row("/rows", 1), std::vector<int64_t>{-4});
  EXPECT_THAT(error_of([&] { read.read_variable_row("/rows", 2); }), HasSubstr("has shape [2]"));
}

TEST_F(Hdf5, StitchesPiecesAndSurvivesMoving) {
  const auto values = counting<float>(12);
  fs::create_directory(folder_ / "here");
  for (int part = 0; part < 2; ++part) {
    auto shard = File::create(at("here/part" + std::to_string(part) + ".h5"));
    shard.write("/rows", Type::f32, {2, 3}, values.data() + 6 * part);
  }
  {
    auto file = File::create(at("here/whole.h5"));
    file.write_virtual("/model/weight", Type::f32, {4, 3},
                       {{"part0.h5", "/rows", {0, 0}, {2, 3}}, {"part1.h5", "/rows", {2, 0}, {2, 3}}});
    file.close();
  }
  fs::rename(folder_ / "here", folder_ / "there");
  std::vector<float> read(12);
  File::open(at("there/whole.h5")).read("/model/weight", Type::f32, read.data());
  EXPECT_EQ(read, values);
}

TEST_F(Hdf5, StitchesThousandsOfPieces) {
  const int64_t count = 3000;
  const auto values = counting<float>(4);
  std::vector<Piece> pieces;
  for (int64_t i = 0; i < count; ++i)
    pieces.push_back({"p" + std::to_string(i) + ".h5", "/row", {i, 0}, {1, 4}});
  File::create(at("p2999.h5")).write("/row", Type::f32, {1, 4}, values.data());
  File::create(at("many.h5")).write_virtual("/all", Type::f32, {count, 4}, pieces);
  std::vector<float> read(4);
  File::open(at("many.h5")).read_slice("/all", Type::f32, {count - 1, 0}, {1, 4}, read.data());
  EXPECT_EQ(read, values);
}

TEST_F(Hdf5, TextsAndAttributes) {
  const std::string text = "run: {seed: 1}\n# è, 漢\n" + std::string(100'000, 'x');
  {
    auto file = File::create(at("text.h5"));
    file.write_text("/recipe", text);
    file.write_text("/nothing", "");
    file.set_attribute("/", "title", std::string("Größe"));
    file.set_attribute("/", "step", 12);
    file.set_attribute("/", "step", int64_t(1) << 40);
    file.set_attribute("/recipe", "loss", 0.25);
    EXPECT_THAT(error_of([&] { file.set_attribute("/model", "a", 1); }),
                HasSubstr("attribute 'a' of '/model'"));
  }
  const auto file = File::open(at("text.h5"));
  EXPECT_EQ(file.read_text("/recipe"), text);
  EXPECT_EQ(file.read_text("/nothing"), "");
  EXPECT_EQ(file.info("/recipe").shape, Shape{int64_t(text.size())});
  EXPECT_TRUE(file.info("/recipe").text);
  EXPECT_EQ(file.text_attribute("/", "title"), "Größe");
  EXPECT_EQ(file.integer_attribute("/", "step"), int64_t(1) << 40);
  EXPECT_EQ(file.real_attribute("/recipe", "loss"), 0.25);
  EXPECT_TRUE(file.has_attribute("/recipe", "loss"));
  EXPECT_FALSE(file.has_attribute("/recipe", "step"));
  EXPECT_FALSE(file.has_attribute("/absent", "step"));
  EXPECT_THAT(error_of([&] { file.integer_attribute("/", "steps"); }),
              HasSubstr("no attribute 'steps' at '/'"));
  EXPECT_THAT(error_of([&] { file.integer_attribute("/", "title"); }), HasSubstr("not a number"));
  EXPECT_THAT(error_of([&] { file.text_attribute("/", "step"); }), HasSubstr("not one text"));
}

TEST_F(Hdf5, SaysWhatIsWrongWithAFile) {
  EXPECT_THAT(error_of([&] { File::open(at("none.h5")); }), HasSubstr("none.h5: no such file"));
  EXPECT_THAT(error_of([&] { File::open(folder_); }), HasSubstr("is a folder"));
  EXPECT_THAT(error_of([&] { File::create(at("no/such/folder.h5")); }),
              HasSubstr("No such file or directory"));
  std::ofstream(at("foreign.h5")) << std::string(5000, 'a');
  EXPECT_THAT(error_of([&] { File::open(at("foreign.h5")); }), HasSubstr("foreign.h5: not an HDF5 file"));
  const auto values = counting<int64_t>(10'000);
  {
    auto file = File::create(at("cut.h5"));
    file.write("/learning_rate", Type::i64, {10'000}, values.data());
  }
  EXPECT_THAT(error_of([&] { File::open(at("cut.h5")).info("/learning_rat"); }),
              HasSubstr("no dataset '/learning_rat'; valid: /learning_rate; did you mean '/learning_rate'?"));
  fs::resize_file(at("cut.h5"), 50'000);
  EXPECT_THAT(error_of([&] { File::open(at("cut.h5")); }), HasSubstr("truncated file"));
}

TEST_F(Hdf5, NamesTheFileThatCannotGrow) {
  const std::vector<char> data(1 << 20);
  rlimit old{}, small{};
  getrlimit(RLIMIT_FSIZE, &old);
  small = old;
  small.rlim_cur = 1 << 16;
  signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &small);
  const auto message = error_of([&] {
    auto file = File::create(at("large.h5"));
    file.write("/data", Type::u8, {1 << 20}, data.data());
    file.close();
  });
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_THAT(message, HasSubstr("large.h5: cannot"));
  EXPECT_THAT(message, HasSubstr("File too large"));
}

TEST_F(Hdf5, ThreadsMayUseFilesAtOnce) {
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const auto values = counting<int32_t>(1000);
      const auto path = at("thread" + std::to_string(t) + ".h5");
      {
        auto file = File::create(path);
        for (int i = 0; i < 20; ++i) file.write("/d" + std::to_string(i), Type::i32, {1000}, values.data());
      }
      std::vector<int32_t> read(1000);
      File::open(path).read("/d19", Type::i32, read.data());
      if (read == values && error_of([&] { File::open(path + "x"); }).find("no such") != std::string::npos)
        ++right;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(right, 4);
}

}  // namespace
}  // namespace tessera::hdf5
