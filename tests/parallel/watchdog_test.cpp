// The watchdog with a library of messages that is made up: all that NCCL may do to it.
#include "parallel/watchdog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace tessera {
namespace {
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using testing::HasSubstr;

struct FakeOperation : Watched {
  using Watched::Watched;
  bool finished() override {
    EXPECT_TRUE(is_issued()) << "asked before there is anything to ask";
    ++num_asked;
    if (broken) throw std::runtime_error("an illegal address");
    return over;
  }
  std::atomic<bool> over{false}, broken{false};
  std::atomic<int> num_asked{0};
};

void sleep_for_ever() {
  for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
}

class WatchdogTest : public testing::Test {
 protected:
  WatchdogOptions options(milliseconds limit = milliseconds(300)) {
    return {.group = "4 GPUs",
            .time_limit = limit,
            .end_limit = std::chrono::minutes(1),
            .problem = [this] { return broken ? "unhandled system error" : ""; },
            .abort = [this] { aborted.set_value(); }};
  }
  // What throw_error() says, once it does, and after how long.
  std::string error_of(const Watchdog& watchdog) {
    const auto start = steady_clock::now();
    while (steady_clock::now() - start < std::chrono::seconds(20)) {
      try {
        watchdog.throw_error();
      } catch (const std::runtime_error& error) {
        waited = steady_clock::now() - start;
        return error.what();
      }
      std::this_thread::sleep_for(milliseconds(5));
    }
    return "no error";
  }
  bool was_aborted() {
    return aborted.get_future().wait_for(std::chrono::seconds(20)) == std::future_status::ready;
  }

  std::atomic<bool> broken{false};
  std::promise<void> aborted;
  steady_clock::duration waited{};
};

TEST_F(WatchdogTest, an_operation_that_never_ends_is_an_error) {
  Watchdog watchdog(options());
  const auto first = std::make_shared<FakeOperation>("broadcast"),
             late = std::make_shared<FakeOperation>("all-reduce");
  for (const auto& operation : {first, late}) {
    watchdog.add(operation);
    operation->set_issued();
  }
  first->over = true;
  EXPECT_EQ(error_of(watchdog),
            "all-reduce among 4 GPUs has waited 0.3 s for the others (limit: TESSERA_TIMEOUT_SECONDS)");
  EXPECT_GE(waited, milliseconds(290));
  EXPECT_TRUE(was_aborted());
}

TEST_F(WatchdogTest, so_is_one_whose_issuing_never_returns) {
  Watchdog watchdog(options());
  const auto operation = std::make_shared<FakeOperation>("send");
  operation->over = true;  // as an event that nothing has been recorded in says
  watchdog.add(operation);
  EXPECT_THAT(error_of(watchdog),
              HasSubstr("send among 4 GPUs has waited 0.3 s for the others, some of which"));
  EXPECT_EQ(operation->num_asked, 0);
  EXPECT_TRUE(was_aborted());
}

TEST_F(WatchdogTest, what_asking_throws_is_an_error_and_not_the_end_of_the_thread) {
  Watchdog watchdog(options(std::chrono::minutes(1)));
  const auto operation = std::make_shared<FakeOperation>("all-gather");
  operation->broken = true;
  watchdog.add(operation);
  operation->set_issued();
  EXPECT_EQ(error_of(watchdog), "all-gather among 4 GPUs failed: an illegal address");
  EXPECT_TRUE(was_aborted());
}

TEST_F(WatchdogTest, what_the_library_knows_is_an_error) {
  Watchdog watchdog(options(std::chrono::minutes(1)));
  broken = true;
  EXPECT_EQ(error_of(watchdog), "messages among 4 GPUs lost them: unhandled system error");
  EXPECT_TRUE(was_aborted());
}

// Aborting may wait for threads that are about to ask for the error.
TEST_F(WatchdogTest, the_error_can_be_had_while_aborting) {
  std::promise<std::string> seen;
  const Watchdog* itself = nullptr;
  WatchdogOptions how = options();
  how.abort = [&] { seen.set_value(error_of(*itself)); };
  Watchdog watchdog(how);
  itself = &watchdog;
  broken = true;
  EXPECT_THAT(seen.get_future().get(), HasSubstr("unhandled system error"));
}

TEST_F(WatchdogTest, forgets_what_has_ended_and_leaves_the_rest_alone) {
  std::weak_ptr<FakeOperation> ended;
  Watchdog watchdog(options());
  {
    const auto operation = std::make_shared<FakeOperation>("barrier");
    ended = operation;
    watchdog.add(operation);
    operation->set_issued();
    operation->over = true;
  }
  std::this_thread::sleep_for(milliseconds(500));
  EXPECT_TRUE(ended.expired());
  EXPECT_NO_THROW(watchdog.throw_error());
}

TEST_F(WatchdogTest, goes_at_once_also_after_an_error) {
  auto watchdog = std::make_unique<Watchdog>(options());
  const auto operation = std::make_shared<FakeOperation>("send");
  watchdog->add(operation);
  EXPECT_THAT(error_of(*watchdog), HasSubstr("send"));
  EXPECT_TRUE(was_aborted());
  const auto start = steady_clock::now();
  watchdog.reset();
  EXPECT_LT(steady_clock::now() - start, std::chrono::seconds(5));
}

using WatchdogDeathTest = WatchdogTest;

TEST_F(WatchdogDeathTest, ends_the_process_where_aborting_never_returns) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto hang = [this] {
    WatchdogOptions how = options();
    how.end_limit = milliseconds(300);
    how.abort = sleep_for_ever;
    Watchdog watchdog(how);
    watchdog.add(std::make_shared<FakeOperation>("all-reduce"));
    sleep_for_ever();  // as in a call that waits for the other ranks
  };
  EXPECT_EXIT(hang(), testing::ExitedWithCode(1), "tessera: all-reduce among 4 GPUs has waited 0.3 s");
}

TEST_F(WatchdogDeathTest, ends_the_process_that_has_not_ended_itself) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto stay = [this] {
    WatchdogOptions how = options();
    how.end_limit = milliseconds(300);
    Watchdog watchdog(how);
    broken = true;
    EXPECT_THAT(error_of(watchdog), HasSubstr("lost them"));
    sleep_for_ever();
  };
  EXPECT_EXIT(stay(), testing::ExitedWithCode(1), "tessera: messages among 4 GPUs lost them");
}
}  // namespace
}  // namespace tessera
