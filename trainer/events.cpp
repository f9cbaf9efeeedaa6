// TensorBoard's event files by hand: TFRecords (length, masked CRC, bytes, masked CRC) of Event messages, of
// which we need a few fields. Field numbers:
// tensorboard/compat/proto/{event,summary,tensor,tensor_shape}.proto.
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "trainer/files.h"
#include "trainer/metrics.h"

namespace tessera {
namespace {

std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0x82F63B78u : 0u);
    table[i] = value;
  }
  return table;
}

uint32_t masked_crc(const std::string& bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

template <class T>
std::string raw(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

// One field of a protocol buffer: (number << 3 | wire type), then the value.
std::string field(int number, uint64_t value) {
  return varint(static_cast<uint64_t>(number) << 3) + varint(value);
}
std::string field(int number, double value) {
  return varint(static_cast<uint64_t>(number) << 3 | 1) + raw(value);
}
std::string field(int number, float value) {
  return varint(static_cast<uint64_t>(number) << 3 | 5) + raw(value);
}
std::string field(int number, const std::string& value) {
  return varint(static_cast<uint64_t>(number) << 3 | 2) + varint(value.size()) + value;
}

std::string record(const std::string& bytes) {
  const std::string length = raw(static_cast<uint64_t>(bytes.size()));
  return length + raw(masked_crc(length)) + bytes + raw(masked_crc(bytes));
}

double now() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

uint32_t crc32c(const std::string& bytes) {
  static const auto table = make_crc_table();
  uint32_t crc = ~0u;
  for (const char byte : bytes) crc = table[(crc ^ static_cast<unsigned char>(byte)) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

EventWriter::EventWriter(const std::string& folder, int64_t resumed_step) {
  char host[256] = "localhost";
  ::gethostname(host, sizeof(host) - 1);
  const std::string name = "events.out.tfevents." + std::to_string(static_cast<int64_t>(now())) + "." + host +
                           "." + std::to_string(::getpid());
  path_ = std::filesystem::path(folder) / name;
  file_ = open_for_append(path_);
  event(0, field(3, std::string("brain.Event:2")));  // file_version, must come first
  // session_log {status: START}: steps from here on in earlier files are void.
  if (resumed_step > 0) event(resumed_step + 1, field(7, field(1, uint64_t{1})));
}

EventWriter::~EventWriter() { ::close(file_); }

void EventWriter::event(int64_t step, const std::string& content) {
  append_whole(file_, record(field(1, now()) + field(2, static_cast<uint64_t>(step)) + content), path_);
}

void EventWriter::scalars(int64_t step, const std::vector<Metric>& metrics) {
  std::string summary;
  for (const auto& [tag, value] : metrics) {
    summary += field(1, field(1, tag) + field(2, static_cast<float>(value)));  // value {tag, simple_value}
  }
  event(step, field(5, summary));
}

void EventWriter::text(int64_t step, const std::string& tag, const std::string& markdown) {
  constexpr uint64_t string_type = 7;
  const std::string shape = field(2, field(1, uint64_t{1}));  // dim {size: 1}
  const std::string tensor = field(1, string_type) + field(2, shape) + field(8, markdown);
  const std::string metadata = field(1, field(1, std::string("text")));  // plugin_data {plugin_name}
  event(step, field(5, field(1, field(1, tag) + field(8, tensor) + field(9, metadata))));
}

}  // namespace tessera
