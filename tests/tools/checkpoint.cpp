// Drives checkpoints for tests/trainer/test_checkpoint_files.py and for measuring.
//   checkpoint write FOLDER STEP [RANKS]   one checkpoint of known values, by as many ranks (threads)
//   checkpoint loop FOLDER [RANKS]         from the newest on, saves step after step until killed; says each
//   step
//                                          once save() returned
//   checkpoint check FOLDER                verifies the newest; prints "STEP RANKS", "skipped: …" first
//   checkpoint bench FOLDER MEGABYTES      MB/s of saving and loading, and how long save() stalls
#include "trainer/checkpoint.h"

#include <torch/torch.h>

#include <barrier>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <thread>

#include "recipes/error.h"

namespace {

using namespace tessera;

std::vector<TensorPiece> state_of(int64_t step) {
  const auto values = at::arange(600 * 300, at::kFloat).reshape({600, 300}) + step;
  return {whole_piece("model/weight", values),
          whole_piece("model/bias", values[0].clone()),
          whole_piece("model/half", values.narrow(0, 0, 2).to(at::kBFloat16)),
          whole_piece("model/scale", at::full({}, double(step))),
          whole_piece("optimizer/exp_avg/weight", -values),
          whole_piece("optimizer/count/weight", at::arange(3))};
}

CheckpointMeta meta_of(int64_t step) {
  CheckpointMeta meta;
  meta.step = step, meta.samples = 64 * step, meta.seed = 7;
  meta.recipe = "run: {seed: 7}\n", meta.tokenizer = "{\"version\": \"1.0\"}", meta.state_json = "{}";
  meta.score = 1.0 / double(step);
  return meta;
}

/// Each rank on a thread, its writer kept over all steps.
void save_all(const std::string& folder, int ranks, int64_t first, int64_t last) {
  std::barrier<> together(ranks);
  std::vector<std::string> texts(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      CheckpointOptions options;
      options.folder = folder, options.rank = rank, options.size = ranks, options.keep = 2;
      options.gather_text = [&](const std::string& text) {
        texts[static_cast<size_t>(rank)] = text;
        together.arrive_and_wait();
        auto all = texts;
        together.arrive_and_wait();
        return all;
      };
      CheckpointWriter writer(options);
      for (int64_t step = first; step <= last; ++step) {
        writer.save(meta_of(step), share_out(state_of(step), rank, ranks));
        if (rank == 0) std::cout << step << std::endl;
        together.arrive_and_wait();  // as training keeps ranks together
      }
      writer.wait();
    });
  }
  for (auto& thread : threads) thread.join();
}

void check(const std::string& folder) {
  const auto newest = newest_checkpoint(folder);
  for (const auto& skipped : newest.skipped) std::cout << "skipped: " << skipped << "\n";
  if (newest.path.empty()) {
    std::cout << "none\n";
    return;
  }
  const auto reader = CheckpointReader::open(newest.path);
  for (const auto& problem : reader.verify()) throw Error(problem);
  for (const auto& piece : state_of(reader.meta().step)) {
    if (!at::equal(reader.read(piece.name), piece.local)) throw Error(piece.name + " differs");
  }
  std::cout << reader.meta().step << " " << reader.num_shards() << "\n";
}

double seconds_of(const std::function<void()>& action) {
  const auto start = std::chrono::steady_clock::now();
  action();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void bench(const std::string& folder, int64_t megabytes) {
  std::vector<TensorPiece> state;
  for (int64_t i = 0; i < megabytes / 4; ++i) {
    state.push_back(whole_piece("model/layer." + std::to_string(i) + ".weight", at::randn({1024, 1024})));
  }
  CheckpointOptions options;
  options.folder = folder, options.keep = 1;
  CheckpointWriter writer(options);
  for (int64_t step = 1; step <= 3; ++step) {
    const double stall = seconds_of([&] { writer.save(meta_of(step), state); });
    const double rest = seconds_of([&] { writer.wait(); });
    const double load = seconds_of([&] {
      const auto reader = CheckpointReader::open(folder);
      for (const auto& piece : state) reader.read(piece.name);
    });
    std::printf("save %.0f MB/s (stall %.0f ms, rest %.0f ms), load with checksums %.0f MB/s (cached)\n",
                double(megabytes) / (stall + rest), 1e3 * stall, 1e3 * rest, double(megabytes) / load);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const auto number = [&](size_t i, int64_t otherwise) {
    return words.size() > i ? std::stoll(words[i]) : otherwise;
  };
  try {
    if (words.size() < 2) throw Error("usage: checkpoint write|loop|check|bench FOLDER …");
    if (words[0] == "write") save_all(words[1], int(number(3, 1)), number(2, 1), number(2, 1));
    if (words[0] == "loop") {
      const auto newest = newest_checkpoint(words[1]).path;
      const int64_t step = newest.empty() ? 0 : CheckpointReader::open(newest).meta().step;
      save_all(words[1], int(number(2, 1)), step + 1, step + 1'000'000);
    }
    if (words[0] == "check") check(words[1]);
    if (words[0] == "bench") bench(words[1], number(2, 512));
  } catch (const Error& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}
