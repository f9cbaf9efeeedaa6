#include "trainer/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "recipes/error.h"
#include "trainer/progress.h"

namespace tessera {
namespace {

std::string temporary(const std::string& name) {
  const auto path = std::filesystem::temp_directory_path() / ("tessera-" + std::to_string(::getpid()) + name);
  std::filesystem::remove_all(path);
  return path;
}

std::string contents(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

TEST(MetricsLog, ResumingCutsLaterAndTornLines) {
  const std::string path = temporary("metrics.jsonl");
  {
    MetricsLog log(path, 0);
    for (int step = 1; step <= 4; ++step) log.write(step, {{"loss", step / 2.0}});
  }
  std::ofstream(path, std::ios::app) << "{\"step\": 5, \"lo";
  {
    MetricsLog log(path, 9);
    log.write(10, {});
  }
  EXPECT_THAT(contents(path), testing::EndsWith("{\"step\": 4, \"loss\": 2}\n{\"step\": 10}\n"));
  {
    MetricsLog log(path, 2);
    log.write(3, {{"a \"b\"", 1e-7}});
  }
  EXPECT_EQ(
      contents(path),
      "{\"step\": 1, \"loss\": 0.5}\n{\"step\": 2, \"loss\": 1}\n{\"step\": 3, \"a \\\"b\\\"\": 1e-07}\n");
  MetricsLog(path, 0);
  EXPECT_EQ(contents(path), "");
  std::filesystem::remove(path);
}

TEST(MetricsLog, MissingFolderIsNamed) {
  try {
    MetricsLog log("/nowhere/at/all/metrics.jsonl", 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                testing::StartsWith("/nowhere/at/all/metrics.jsonl: cannot be written: No such file"));
  }
}

TEST(MetricsLog, FullDiskIsNamed) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP();
  const std::string path = temporary("full.jsonl");
  std::filesystem::create_symlink("/dev/full", path);
  EXPECT_THROW(
      {
        MetricsLog log(path, 0);
        log.write(1, {});
      },
      Error);
  std::filesystem::remove(path);
}

TEST(Crc32c, KnownValues) {  // RFC 3720, B.4
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43u);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
}

TEST(Progress, PlainLinesAtFirstEveryAndLast) {
  std::ostringstream out;
  double time = 0;
  Progress progress(out, {.total = 7, .every = 3, .clock = [&] { return time; }});
  for (int step = 1; step <= 7; ++step) {
    time += 10;
    progress.update(step, {.loss = 2.5, .learning_rate = 1e-4, .tokens_per_second = 12345});
  }
  progress.finish();
  EXPECT_EQ(out.str(),
            "step 1/7  loss 2.5000  lr 1.00e-04  12.3k tok/s  elapsed 0:10  left 1:00\n"
            "step 3/7  loss 2.5000  lr 1.00e-04  12.3k tok/s  elapsed 0:30  left 0:40\n"
            "step 6/7  loss 2.5000  lr 1.00e-04  12.3k tok/s  elapsed 1:00  left 0:10\n"
            "step 7/7  loss 2.5000  lr 1.00e-04  12.3k tok/s  elapsed 1:10  left 0:00\n");
}

TEST(Progress, TimeLeftCountsFromTheResumedStep) {
  std::ostringstream out;
  double time = 0;
  Progress progress(out, {.total = 20, .first_step = 10, .clock = [&] { return time; }});
  time = 2;
  progress.update(11, {});
  EXPECT_THAT(out.str(), testing::HasSubstr("left 0:18"));
}

TEST(Progress, TerminalLineIsRefreshedInPlaceAndFits) {
  std::ostringstream out;
  double time = 0;
  Progress progress(out, {.total = 100, .terminal = true, .columns = 80, .clock = [&] { return time; }});
  for (int step = 1; step <= 100; ++step) {
    time += 0.01;
    progress.update(step, {.loss = 1, .learning_rate = 0.1, .tokens_per_second = 100});
  }
  progress.note("saved");
  progress.finish();
  const std::string text = out.str();
  EXPECT_LE(std::count(text.begin(), text.end(), '\r'), 13);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
  const std::string last = text.substr(text.rfind("100/100"));
  const auto columns = std::count_if(last.begin(), last.end(), [](char c) { return (c & 0xC0) != 0x80; });
  EXPECT_LE(columns, 80);
  EXPECT_GE(columns, 70);
}

TEST(Format, DurationsCountsBytes) {
  EXPECT_EQ(format_duration(65), "1:05");
  EXPECT_EQ(format_duration(3725.4), "1:02:05");
  EXPECT_EQ(format_count(950), "950");
  EXPECT_EQ(format_count(11171328), "11.2M");
  EXPECT_EQ(format_count(1.5e9), "1.50B");
  EXPECT_EQ(format_bytes(1234567), "1.23 MB");
}

TEST(Table, AlignsValues) {
  Table table;
  table.heading("model");
  table.row("family", "bert");
  table.row("parameters", "11M\n4 layers");
  EXPECT_EQ(table.text(), "model\n  family      bert\n  parameters  11M\n              4 layers\n");
}

}  // namespace
}  // namespace tessera
