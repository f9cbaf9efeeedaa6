// What goes wrong on disks: each ends in one clear Error, and earlier checkpoints stay.
#include <sys/mount.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>

#include "tests/trainer/checkpoint_testing.h"
#include "trainer/checkpoint.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

void save(const CheckpointOptions& options, int64_t step) {
  CheckpointWriter writer(options);
  writer.save(made_up_meta(step), made_up_state(step));
  writer.wait();
}

void flip(const std::string& path, int64_t byte, int bit) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(byte);
  const char old = static_cast<char>(file.get());
  file.seekp(byte);
  file.put(static_cast<char>(old ^ (1 << bit)));
}

/// Whether opening or verifying finds something.
std::string found_in(const std::string& folder) {
  try {
    const auto problems = CheckpointReader::open(folder).verify();
    return problems.empty() ? "" : problems.front();
  } catch (const Error& error) {
    return error.what();
  }
}

TEST_F(CheckpointTest, AFlippedBitAnywhereIsFound) {
  save(options(), 1);
  const std::string step = at("checkpoints/step-00000001");
  EXPECT_EQ(found_in(step), "");
  for (const char* name : {"checkpoint.h5", "shard-00000.h5"}) {
    const std::string path = step + "/" + name;
    const int64_t size = static_cast<int64_t>(fs::file_size(path));
    std::vector<int64_t> places = {0, 20, 60, 4095, 4096, 4100, 5000, size - 1};
    for (int64_t i = 1; i < 40; ++i) places.push_back(size * i / 40);
    for (const int64_t place : places) {
      flip(path, place, static_cast<int>(place % 8));
      EXPECT_THAT(found_in(step), HasSubstr(name)) << "byte " << place << " of " << size;
      flip(path, place, static_cast<int>(place % 8));
    }
  }
  EXPECT_EQ(found_in(step), "");
}

TEST_F(CheckpointTest, AFlippedBitInATensorIsFoundWhenItIsRead) {
  save(options(), 1);
  const std::string shard = at("checkpoints/step-00000001/shard-00000.h5");
  const auto reader = CheckpointReader::open(at("checkpoints"));
  const auto& place = reader.info("model/half").pieces.at(0);
  flip(shard, place.at + 9, 3);
  EXPECT_THAT(error_of([&] { reader.read("model/half"); }),
              AllOf(HasSubstr("shard-00000.h5: damaged"), HasSubstr("'model/half'")));
  reader.read("model/scale");  // the rest is fine
  EXPECT_THAT(reader.verify(), SizeIs(1));
}

TEST_F(CheckpointTest, TruncatedMissingAndForeignShardsAreFoundOnOpening) {
  save(options(), 1);
  const std::string step = at("checkpoints/step-00000001"), shard = step + "/shard-00000.h5";
  fs::copy_file(shard, at("kept"));
  const auto restore = [&] { fs::copy_file(at("kept"), shard, fs::copy_options::overwrite_existing); };
  for (const uintmax_t size : {uintmax_t(0), uintmax_t(100), uintmax_t(4096), fs::file_size(shard) - 1}) {
    fs::resize_file(shard, size);
    EXPECT_THAT(found_in(step), AllOf(HasSubstr("shard-00000.h5"), HasSubstr("bytes"))) << size;
    restore();
  }
  fs::remove(shard);
  EXPECT_THAT(found_in(step), HasSubstr("shard-00000.h5: missing"));
  save(options(), 2);
  fs::copy_file(at("checkpoints/step-00000002/shard-00000.h5"), shard);
  EXPECT_THAT(found_in(step), HasSubstr("belongs to another checkpoint"));
  restore();
  EXPECT_EQ(found_in(step), "");
  fs::remove(step + "/checkpoint.h5");
  EXPECT_THAT(found_in(step), HasSubstr("no checkpoint here"));
}

TEST_F(CheckpointTest, TheNewestWholeOneIsFoundAndTheDamagedAreNamed) {
  for (int64_t step : {1, 2, 3, 4}) {
    auto how = options();
    how.keep = 4;
    save(how, step);
  }
  fs::resize_file(at("checkpoints/step-00000004/shard-00000.h5"), 5000);
  flip(at("checkpoints/step-00000003/checkpoint.h5"), 9000, 1);
  const auto newest = newest_checkpoint(folder_);
  EXPECT_EQ(newest.path, at("checkpoints/step-00000002"));
  ASSERT_THAT(newest.skipped, SizeIs(2));
  EXPECT_THAT(newest.skipped[0], AllOf(HasSubstr("step-00000004"), HasSubstr("5000 bytes")));
  EXPECT_THAT(newest.skipped[1], AllOf(HasSubstr("step-00000003"), HasSubstr("checksum")));
  for (int64_t step : {1, 2})
    fs::remove(at("checkpoints/step-0000000" + std::to_string(step) + "/checkpoint.h5"));
  EXPECT_EQ(newest_checkpoint(folder_).path, "");
  EXPECT_THAT(error_of([&] { CheckpointReader::open(folder_); }),
              HasSubstr("no whole checkpoint; damaged: "));
}

TEST_F(CheckpointTest, AMovedFolderReadsTheSame) {
  save(options(), 3);
  fs::rename(at("checkpoints/step-00000003"), at("elsewhere"));
  expect_holds(CheckpointReader::open(at("elsewhere")), made_up_state(3));
  std::vector<float> rows(1031 * 300);  // through HDF5's own stitching too
  hdf5::File::open(at("elsewhere/checkpoint.h5"))
      .read("/model/embeddings.weight", hdf5::Type::f32, rows.data());
  EXPECT_EQ(rows.back(), 1031 * 300 - 1 + 3);
}

TEST_F(CheckpointTest, ANewerFormatIsNamed) {
  save(options(), 1);
  std::fstream(at("checkpoints/step-00000001/checkpoint.h5"), std::ios::in | std::ios::out)
      .seekp(0)
      .write("tessera checkpoint\nformat: 7\n", 29);
  EXPECT_THAT(error_of([&] { CheckpointReader::open(folder_); }),
              HasSubstr("format 7, made by a newer Tessera"));
}

/// A full disk as any user can make one: files may not grow past a limit.
class SmallFiles {
 public:
  explicit SmallFiles(rlim_t bytes) {
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old_);
    rlimit small = old_;
    small.rlim_cur = bytes;
    setrlimit(RLIMIT_FSIZE, &small);
  }
  ~SmallFiles() { setrlimit(RLIMIT_FSIZE, &old_); }

 private:
  rlimit old_{};
};

TEST_F(CheckpointTest, AFailedSaveNamesTheFileAndTheOldOneStays) {
  CheckpointWriter writer(options());
  writer.save(made_up_meta(1), made_up_state(1));
  writer.wait();
  for (const rlim_t limit : {rlim_t(1 << 10), rlim_t(1 << 14), rlim_t(1 << 20)}) {
    SmallFiles small(limit);
    writer.save(made_up_meta(2), made_up_state(2));
    EXPECT_THAT(error_of([&] { writer.save(made_up_meta(3), made_up_state(3)); }),
                AllOf(HasSubstr("shard-00000.h5"), HasSubstr("File too large")))
        << limit;
    EXPECT_EQ(CheckpointReader::open(folder_).meta().step, 1);
    EXPECT_THAT(list_checkpoints(at("checkpoints")), SizeIs(1));
  }
  writer.save(made_up_meta(2), made_up_state(2));  // and goes on once there is room
  writer.wait();
  expect_holds(CheckpointReader::open(folder_), made_up_state(2));
}

TEST_F(CheckpointTest, AFullDiskIsSaidAndItsSpaceGivenBack) {
  const std::string disk = at("checkpoints");
  fs::create_directories(disk);
  if (mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=8m") != 0)
    GTEST_SKIP() << "no right to mount a small disk";
  {
    CheckpointWriter writer(options());
    writer.save(made_up_meta(1), made_up_state(1));  // 3.8 MB
    writer.wait();
    std::ofstream(disk + "/filler") << std::string(3 << 20, 'x');
    writer.save(made_up_meta(2), made_up_state(2));
    EXPECT_THAT(error_of([&] { writer.wait(); }),
                AllOf(HasSubstr(disk), HasSubstr("No space left on device")));
    EXPECT_EQ(CheckpointReader::open(folder_).meta().step, 1);
    fs::remove(disk + "/filler");
    writer.save(made_up_meta(2), made_up_state(2));
    writer.wait();
    expect_holds(CheckpointReader::open(folder_), made_up_state(2));
  }
  umount2(disk.c_str(), MNT_DETACH);
}

TEST_F(CheckpointTest, AFolderThatCannotBeWrittenFailsAtTheStartOnEveryRank) {
  std::ofstream(at("checkpoints")) << "a file where the folder should be";
  std::atomic<int> told = 0;
  play_ranks(2, [&](int rank, auto gather) {
    auto how = options();
    how.rank = rank, how.size = 2, how.gather_text = gather;
    if (error_of([&] { CheckpointWriter writer(how); }).find("checkpoints: cannot be made") !=
        std::string::npos)
      ++told;
  });
  EXPECT_EQ(told, 2);
  fs::remove(at("checkpoints"));
  fs::create_directories(at("checkpoints"));
  fs::permissions(at("checkpoints"), fs::perms::owner_read | fs::perms::owner_exec);
  const bool root = geteuid() == 0;  // for whom every folder is writable
  ASSERT_EQ(seteuid(root ? 65534 : geteuid()), 0);
  const auto message = error_of([&] { CheckpointWriter writer(options()); });
  ASSERT_EQ(seteuid(root ? 0 : geteuid()), 0);
  fs::permissions(at("checkpoints"), fs::perms::owner_all);
  EXPECT_THAT(message, HasSubstr("Permission denied"));
}

TEST_F(CheckpointTest, ARankThatDoesNotDeliverIsNamed) {
  play_ranks(2, [&](int rank, auto gather) {
    auto how = options();
    how.rank = rank, how.size = 2, how.gather_text = gather, how.patience = 0.2;
    CheckpointWriter writer(how);
    if (rank == 1) return;
    writer.save(made_up_meta(1), share_out(made_up_state(1), rank, 2));
    EXPECT_THAT(error_of([&] { writer.wait(); }), HasSubstr("rank 1 has not written it after 0 s"));
  });
}

TEST_F(CheckpointTest, AFolderThatRanksDoNotShareIsFoundAtTheStart) {
  std::atomic<int> told = 0;
  play_ranks(2, [&](int rank, auto gather) {
    auto how = options();
    how.rank = rank, how.size = 2, how.gather_text = gather, how.patience = 0.2;
    if (rank == 1) how.folder += "-of-another-host";
    const auto message = error_of([&] { CheckpointWriter writer(how); });
    if (message.find("does not see what rank 0 wrote") != std::string::npos) ++told;
  });
  EXPECT_EQ(told, 2);
}

}  // namespace
}  // namespace tessera
