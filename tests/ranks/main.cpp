// Runs every test on all ranks of mpirun. Rank 0 prints; a failure on another rank is printed by that rank.
#include <gtest/gtest.h>

#include "parallel/plugin.h"
#include "tests/ranks/world.h"

namespace {
class OnlyFailures : public testing::EmptyTestEventListener {
  // Asking for the current test while a result is reported would wait for a lock that GoogleTest holds.
  void OnTestStart(const testing::TestInfo& test) override { test_ = test.name(); }
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    // An exception has no place.
    std::cerr << "rank " << tessera::test_world().rank() << ": " << test_ << "\n"
              << (result.file_name() ? result.file_name() : "unknown file") << ":" << result.line_number()
              << "\n"
              << result.message() << std::endl;
  }
  std::string test_;
};
}  // namespace

namespace tessera {
namespace {
World* current = nullptr;
}
World& test_world() { return *current; }
}  // namespace tessera

int main(int argc, char** argv) {
  tessera::find_gpu_plugin();  // first of all: see tests/main.cpp
  testing::InitGoogleTest(&argc, argv);
  return tessera::run_job([](tessera::World& world) {
    tessera::current = &world;
    if (world.rank() != 0) {
      auto& listeners = testing::UnitTest::GetInstance()->listeners();
      delete listeners.Release(listeners.default_result_printer());
      delete listeners.Release(listeners.default_xml_generator());
      listeners.Append(new OnlyFailures);
    }
    const at::Tensor failed = at::full({1}, RUN_ALL_TESTS(), at::kInt);
    world.communicator().all_reduce(failed, tessera::Reduction::max);
    return failed.item<int>();
  });
}
