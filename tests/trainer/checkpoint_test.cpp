#include "trainer/checkpoint.h"

#include <atomic>
#include <fstream>

#include "parallel/transport.h"
#include "tests/trainer/checkpoint_testing.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

TEST_F(CheckpointTest, GivesBackWhatWasSaved) {
  auto meta = made_up_meta(12);
  meta.score = 2.5;
  for (const bool background : {true, false}) {
    auto how = options();
    how.background = background;
    how.folder += background ? "-background" : "";
    CheckpointWriter writer(how);
    writer.save(meta, made_up_state(12));
    writer.wait();
    EXPECT_THAT(names_in(how.folder), ElementsAre("step-00000012"));
    EXPECT_THAT(names_in(how.folder + "/step-00000012"), ElementsAre("checkpoint.h5", "shard-00000.h5"));
    const auto reader = CheckpointReader::open(how.folder);
    expect_holds(reader, made_up_state(12));
    EXPECT_THAT(reader.verify(), IsEmpty());
    EXPECT_EQ(reader.meta().step, 12);
    EXPECT_EQ(reader.meta().samples, 768);
    EXPECT_EQ(reader.meta().seed, 0xfedcba9876543210);
    EXPECT_EQ(reader.meta().score, 2.5);
    EXPECT_EQ(reader.meta().recipe, meta.recipe);
    EXPECT_EQ(reader.meta().tokenizer, meta.tokenizer);
    EXPECT_EQ(reader.meta().state_json, meta.state_json);
    EXPECT_EQ(reader.meta().layout, meta.layout);
    EXPECT_FALSE(reader.meta().version.empty());
  }
}

TEST_F(CheckpointTest, ReadsAnyRectangleInAnyType) {
  const auto state = made_up_state(1);
  play_ranks(3, [&](int rank, auto gather) {
    auto how = options();
    how.rank = rank, how.size = 3, how.gather_text = gather;
    CheckpointWriter writer(how);
    writer.save(made_up_meta(1), share_out(state, rank, 3));
    writer.wait();
  });
  const auto reader = CheckpointReader::open(at("checkpoints"));
  const auto& whole = state[0].local;
  for (const auto& [row, rows, column, columns] : std::vector<std::array<int64_t, 4>>{
           {0, 1031, 0, 300}, {340, 12, 0, 300}, {5, 1000, 7, 100}, {1030, 1, 299, 1}}) {
    const auto expected = whole.narrow(0, row, rows).narrow(1, column, columns);
    EXPECT_TRUE(at::equal(reader.read(state[0].name, {row, column}, {rows, columns}), expected));
    auto strided = at::zeros({columns, rows}, at::kDouble).t();
    reader.read_into(state[0].name, {row, column}, strided);
    EXPECT_TRUE(at::equal(strided, expected.to(at::kDouble)));
  }
  auto deep = at::empty({2, 3, 2});
  reader.read_into("model/half", {1, 2, 5}, deep);
  EXPECT_TRUE(at::equal(deep, state[4].local.slice(0, 1, 3).slice(1, 2, 5).slice(2, 5, 7).to(at::kFloat)));
  auto one = at::empty({}, at::kHalf);
  reader.read_into("model/scale", {}, one);
  EXPECT_EQ(one.item<float>(), 1);
  EXPECT_THAT(error_of([&] {
                reader.read(state[0].name, {1000, 0}, {32, 300});
              }),
              HasSubstr("has shape [1031, 300]; [32, 300] at [1000, 0] is not in it"));
  EXPECT_THAT(error_of([&] { reader.read("model/embedings.weight"); }),
              HasSubstr("did you mean 'model/embeddings.weight'?"));
}

TEST_F(CheckpointTest, ReplicasShareTheWriting) {
  const auto state = made_up_state(0);
  for (int size : {1, 2, 3, 4, 7}) {
    std::vector<int64_t> bytes;
    std::map<std::string, int64_t> elements;
    for (int rank = 0; rank < size; ++rank) {
      bytes.push_back(0);
      for (const auto& piece : share_out(state, rank, size)) {
        bytes.back() += int64_t(piece.local.nbytes());
        elements[piece.name] += piece.local.numel();
      }
    }
    for (const auto& piece : state) EXPECT_EQ(elements[piece.name], piece.local.numel()) << piece.name;
    const auto [least, most] = std::minmax_element(bytes.begin(), bytes.end());
    EXPECT_LT(*most - *least, 50'000) << size;
  }
}

TEST_F(CheckpointTest, WhatAnyNumberOfRanksWroteIsReadWhole) {
  for (int size = 1; size <= 4; ++size) {
    play_ranks(size, [&](int rank, auto gather) {
      auto how = options();
      how.rank = rank, how.size = size, how.gather_text = gather;
      CheckpointWriter writer(how);
      for (int64_t step : {size * 10, size * 10 + 1})
        writer.save(made_up_meta(step), share_out(made_up_state(step), rank, size));
      writer.wait();
    });
    const auto reader = CheckpointReader::open(at("checkpoints"));
    EXPECT_EQ(reader.meta().step, size * 10 + 1);
    EXPECT_EQ(reader.num_shards(), size);
    expect_holds(reader, made_up_state(size * 10 + 1));
    EXPECT_THAT(reader.verify(), IsEmpty());
  }
}

TEST_F(CheckpointTest, StridedAndShardedTensorsAreWrittenAsTheyLie) {
  const auto whole = at::arange(60, at::kFloat).reshape({6, 10});
  CheckpointWriter writer(options());
  writer.save(made_up_meta(1), {{"model/a", {6, 10}, {0, 0}, whole.narrow(1, 0, 4)},
                                {"model/a", {6, 10}, {0, 4}, whole.narrow(1, 4, 6)},
                                {"model/a", {6, 10}, {6, 0}, whole.narrow(0, 0, 0)},
                                whole_piece("model/t", whole.t())});
  writer.wait();
  const auto reader = CheckpointReader::open(at("checkpoints"));
  EXPECT_TRUE(at::equal(reader.read("model/a"), whole));
  EXPECT_TRUE(at::equal(reader.read("model/t"), whole.t()));
}

TEST_F(CheckpointTest, StateMayChangeOnceSaveReturns) {
  auto state = made_up_state(5);
  CheckpointWriter writer(options());
  writer.save(made_up_meta(5), state);
  for (auto& piece : state) piece.local.zero_();
  writer.wait();
  expect_holds(CheckpointReader::open(at("checkpoints")), made_up_state(5));
}

TEST_F(CheckpointTest, TheNewestAndTheBestAreKept) {
  auto how = options();
  how.keep = 2;
  CheckpointWriter writer(how);
  const std::map<int64_t, double> scores = {{1, 3.0}, {2, 1.0}, {3, 2.0}, {4, 2.5}, {5, 1.5}};
  for (const auto& [step, score] : scores) {
    auto meta = made_up_meta(step);
    meta.score = score;
    writer.save(meta, {whole_piece("model/a", at::ones({3}))});
  }
  writer.wait();
  EXPECT_THAT(names_in(how.folder), ElementsAre("step-00000002", "step-00000004", "step-00000005"));
}

TEST_F(CheckpointTest, WhatWasJustWrittenIsKeptEvenIfOlderThanTheRest) {
  auto how = options();
  how.keep = 1;
  CheckpointWriter writer(how);
  for (int64_t step : {9, 3}) writer.save(made_up_meta(step), {whole_piece("model/a", at::ones({3}))});
  writer.wait();
  EXPECT_THAT(names_in(how.folder), ElementsAre("step-00000003", "step-00000009"));
}

TEST_F(CheckpointTest, AStepSavedAgainReplacesTheOldOne) {
  for (int64_t value : {1, 2}) {
    CheckpointWriter writer(options());
    writer.save(made_up_meta(7), made_up_state(value));
    writer.save(made_up_meta(7), {});  // same writer, same step: already saved
    writer.wait();
    expect_holds(CheckpointReader::open(at("checkpoints")), made_up_state(value));
  }
  EXPECT_THAT(names_in(at("checkpoints")), ElementsAre("step-00000007"));
}

TEST_F(CheckpointTest, LeftoversOfDeadRunsAreRemoved) {
  char host[256] = {};
  gethostname(host, sizeof host - 1);
  const auto make = [&](const std::string& name) {
    fs::create_directories(at("checkpoints/" + name));
    std::ofstream(at("checkpoints/" + name + "/shard-00000.h5")) << "half";
  };
  make(".step-00000001.tmp-" + std::string(host) + "@999999999@1");  // no such process
  make(".step-00000002.old-elsewhere@1@1");
  fs::last_write_time(at("checkpoints/.step-00000002.old-elsewhere@1@1"),
                      fs::file_time_type::clock::now() - std::chrono::hours(2));
  make(".step-00000003.tmp-elsewhere@1@1");                  // just changed: may be alive
  make(".step-00000004.tmp-" + std::string(host) + "@1@1");  // process 1 lives
  make("notes");
  CheckpointWriter writer(options());
  EXPECT_THAT(names_in(at("checkpoints")),
              ElementsAre(".step-00000003.tmp-elsewhere@1@1",
                          ".step-00000004.tmp-" + std::string(host) + "@1@1", "notes"));
}

/// A group of which something has failed since, or not.
struct FailingTransport : Transport {
  int rank() const override { return 0; }
  int size() const override { return 2; }
  at::Device device() const override { return at::kCPU; }
  std::shared_ptr<Work::State> start(Operation) override { return nullptr; }
  std::shared_ptr<Transport> split(int, int, GroupUse) override { return nullptr; }
  void check() override {
    if (failed) throw std::runtime_error("unhandled system error");
  }
  std::atomic<bool> failed{false};
};

TEST_F(CheckpointTest, NothingIsPublishedWithARankWhoseMessagesFailed) {
  for (const bool background : {true, false}) {
    play_ranks(2, [&](int rank, const auto& gather_text) {
      auto how = options();
      how.rank = rank, how.size = 2, how.gather_text = gather_text, how.patience = 1;
      how.background = background;
      const auto transport = std::make_shared<FailingTransport>();
      how.check = [group = Communicator(transport)] { group.check(); };
      CheckpointWriter writer(how);
      const auto save = [&](int64_t step) {
        writer.save(made_up_meta(step), share_out(made_up_state(step), rank, 2));
        writer.wait();
      };
      save(1);
      transport->failed = rank == 1;
      EXPECT_ANY_THROW(save(2)) << "rank " << rank;
    });
    EXPECT_TRUE(std::filesystem::exists(at("checkpoints/step-00000001")));
    EXPECT_FALSE(std::filesystem::exists(at("checkpoints/step-00000002")));
    expect_holds(CheckpointReader::open(at("checkpoints")), made_up_state(1));
    std::filesystem::remove_all(at("checkpoints"));
  }
}

TEST_F(CheckpointTest, PathsMayNameAStepAFolderOfStepsOrARun) {
  CheckpointWriter writer(options());
  for (int64_t step : {1, 2}) writer.save(made_up_meta(step), made_up_state(step));
  writer.wait();
  EXPECT_EQ(CheckpointReader::open(folder_).meta().step, 2);
  EXPECT_EQ(CheckpointReader::open(at("checkpoints")).meta().step, 2);
  EXPECT_EQ(CheckpointReader::open(at("checkpoints/step-00000001")).meta().step, 1);
  EXPECT_EQ(CheckpointReader::open(at("checkpoints/step-00000001/checkpoint.h5")).meta().step, 1);
  EXPECT_EQ(newest_checkpoint(folder_).path, at("checkpoints/step-00000002"));
  EXPECT_EQ(newest_checkpoint(at("absent")).path, "");
  EXPECT_THAT(error_of([&] { CheckpointReader::open(at("absent")); }), HasSubstr("no such file or folder"));
  fs::create_directories(at("other/things"));
  EXPECT_THAT(error_of([&] { CheckpointReader::open(at("other")); }),
              HasSubstr("no checkpoint here; the folder holds: things"));
  std::ofstream(at("file.txt")) << "x";
  EXPECT_THAT(error_of([&] { CheckpointReader::open(at("file.txt")); }), HasSubstr("is a file; expected"));
}

TEST_F(CheckpointTest, PiecesThatDoNotTileATensorAreRefused) {
  CheckpointWriter writer(options());
  writer.save(made_up_meta(1), {{"model/a", {4}, {0}, at::ones({3})}});
  EXPECT_THAT(error_of([&] { writer.wait(); }), HasSubstr("wrote 3 of the 4 elements of tensor 'model/a'"));
  EXPECT_THAT(names_in(at("checkpoints")), IsEmpty());
}

}  // namespace
}  // namespace tessera
