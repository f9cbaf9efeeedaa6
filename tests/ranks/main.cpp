// Runs every test on all ranks of mpirun. Rank 0 prints; a failure on another rank is printed by that rank.
#include <gtest/gtest.h>

#include "tests/ranks/world.h"

namespace {
class OnlyFailures : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo& test) override { name_ = test.name(); }
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    // Asking GoogleTest for the current test would wait for ever here: it holds its lock.
    std::cerr << "rank " << tessera::test_world().rank() << ": " << name_ << "\n"
              << result.file_name() << ":" << result.line_number() << "\n"
              << result.message() << std::endl;
  }
  std::string name_;
};
}  // namespace

namespace tessera {
namespace {
World* current = nullptr;
}
World& test_world() { return *current; }
}  // namespace tessera

int main(int argc, char** argv) {
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
