#pragma once
// What the tests of checkpoints share: a folder, a made-up model, ranks played by threads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>
#include <unistd.h>

#include <barrier>
#include <filesystem>
#include <thread>

#include "recipes/error.h"
#include "trainer/checkpoint.h"

namespace tessera {

class CheckpointTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::temp_directory_path() / ("tessera-checkpoint-" + std::to_string(getpid()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string at(const std::string& name) const { return folder_ / name; }
  CheckpointOptions options() const {
    CheckpointOptions made;
    made.folder = at("checkpoints");
    return made;
  }
  std::filesystem::path folder_;
};

template <typename Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

/// Tensors of odd sizes and several types; the values tell step and place.
inline std::vector<TensorPiece> made_up_state(int64_t step) {
  const auto values = [&](std::vector<int64_t> shape, at::ScalarType type) {
    return (at::arange(at::IntArrayRef(shape).empty() ? 1 : c10::multiply_integers(shape), at::kDouble) +
            step)
        .reshape(shape)
        .to(type);
  };
  return {whole_piece("model/embeddings.weight", values({1031, 300}, at::kFloat)),
          whole_piece("model/layers.0.attention.query.weight", values({64, 64}, at::kFloat)),
          whole_piece("model/layers.0.attention.query.bias", values({64}, at::kFloat)),
          whole_piece("model/scale", values({}, at::kFloat)),
          whole_piece("model/half", values({3, 5, 7}, at::kBFloat16)),
          whole_piece("model/nothing", values({0, 4}, at::kFloat)),
          whole_piece("optimizer/momentum/embeddings.weight", values({1031, 300}, at::kDouble)),
          whole_piece("optimizer/count/embeddings", values({3}, at::kByte)),
          whole_piece("ema/layers.0.attention.query.weight", values({64, 64}, at::kHalf))};
}

inline CheckpointMeta made_up_meta(int64_t step) {
  CheckpointMeta meta;
  meta.step = step, meta.samples = 64 * step, meta.seed = 0xfedcba9876543210;
  meta.recipe = "run:\n  seed: 1  # è\n", meta.tokenizer = R"({"version": "1.0"})";
  meta.state_json = R"({"scale": 1024})", meta.layout = "replicate 1";
  return meta;
}

/// Everything in `state` is what the checkpoint holds, bit for bit.
inline void expect_holds(const CheckpointReader& reader, const std::vector<TensorPiece>& state) {
  EXPECT_EQ(reader.tensors().size(), state.size());
  for (const auto& piece : state) {
    const at::Tensor read = reader.read(piece.name);
    EXPECT_EQ(read.scalar_type(), piece.local.scalar_type()) << piece.name;
    EXPECT_TRUE(at::equal(read, piece.local)) << piece.name;
  }
}

/// Runs `body(rank, gather_text)` on as many threads.
template <typename Body>
void play_ranks(int size, Body body) {
  std::barrier<> together(size);
  std::vector<std::string> texts(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      body(rank, [&, rank](const std::string& text) {
        texts[static_cast<size_t>(rank)] = text;
        together.arrive_and_wait();
        auto all = texts;
        together.arrive_and_wait();
        return all;
      });
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace tessera
