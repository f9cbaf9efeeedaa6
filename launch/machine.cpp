#include "launch/machine.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "parallel/plugin.h"

namespace tessera {
namespace {

struct MachineKey {
  const char* name;
  double MachineFigures::*figure;
};
constexpr MachineKey machine_keys[] = {{"flops_fp32", &MachineFigures::flops_fp32},
                                       {"flops_16_bit", &MachineFigures::flops_16_bit},
                                       {"memory_bytes", &MachineFigures::memory},
                                       {"memory_bytes_per_second", &MachineFigures::memory_bandwidth},
                                       {"block_overhead_seconds", &MachineFigures::block_overhead},
                                       {"overlap", &MachineFigures::overlap}};
struct LinkKey {
  const char* name;
  LinkFigures MachineFigures::*link;
};
constexpr LinkKey link_keys[] = {{"inside_host", &MachineFigures::inside},
                                 {"between_hosts", &MachineFigures::between}};

std::vector<std::string> known_keys() {
  std::vector<std::string> keys{"source"};
  for (const auto& key : machine_keys) keys.emplace_back(key.name);
  for (const auto& key : link_keys) keys.emplace_back(key.name);
  return keys;
}

double positive(const nlohmann::json& object, const std::string& key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end()) throw Error(fmt::format("{}: {}: missing; valid: a number above 0", where, key));
  if (!found->is_number() || found->get<double>() <= 0) {
    throw Error(fmt::format("{}: {}: {} is not a number above 0", where, key, found->dump()));
  }
  return found->get<double>();
}

/// Dense products of an H100 or H200 (NVIDIA's data sheets: 989 TFLOP/s in 16 bits, 67 in fp32), of which
/// large models reach about 40 %; NVLink 4, 450 GB/s each way; InfiniBand NDR, 400 Gb/s for each GPU.
/// Latencies and overhead are assumed.
MachineFigures published_gpu() {
  return {.source = "published: H100/H200, NVLink, InfiniBand NDR; 40 % of the products' peak is assumed",
          .flops_fp32 = 0.4 * 67e12,
          .flops_16_bit = 0.4 * 989e12,
          .memory = 141e9,
          .memory_bandwidth = 3.3e12,
          .block_overhead = 150e-6,
          .inside = {10e-6, 0.75 * 450e9},
          .between = {20e-6, 0.75 * 50e9}};
}

MachineFigures assumed_cpu() {
  return {.source = "assumed: a CPU core and Ethernet; tessera doctor --save measures",
          .flops_fp32 = 50e9,
          .flops_16_bit = 50e9,
          .memory = 4e9,
          .memory_bandwidth = 8e9,
          .block_overhead = 100e-6,
          .inside = {5e-6, 3e9},
          .between = {30e-6, 1e9}};
}

double number_in(const char* path) {
  std::ifstream file(path);
  double value = 0;
  return file >> value ? value : 0;
}

}  // namespace

double host_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  double kibibytes = 0;
  file >> name >> kibibytes;
  const double limit = number_in("/sys/fs/cgroup/memory.max");
  const double all = kibibytes * 1024;
  return limit > 0 && limit < all ? limit : all;
}

MachineFigures usual_machine(const Recipe& recipe, int64_t ranks_per_host) {
  MachineFigures machine = recipe.train.device == DeviceChoice::cpu ? assumed_cpu() : published_gpu();
  const GpuPlugin* plugin = recipe.train.device == DeviceChoice::cpu ? nullptr : find_gpu_plugin();
  machine.memory = plugin && plugin->device_count() > 0 ? static_cast<double>(plugin->memory(0).total)
                                                        : host_memory() / static_cast<double>(ranks_per_host);
  return machine;
}

MachineFigures read_machine(const std::string& path) {
  std::ifstream file(path);
  if (!file)
    throw Error(
        fmt::format("{}: {}; valid: a file that tessera doctor --save wrote", path, std::strerror(errno)));
  const auto json = nlohmann::json::parse(file, nullptr, false);
  if (!json.is_object())
    throw Error(
        fmt::format("{}: is not a JSON object; valid: a file that tessera doctor --save wrote", path));
  const auto keys = known_keys();
  for (const auto& item : json.items()) {
    if (std::find(keys.begin(), keys.end(), item.key()) == keys.end())
      throw Error(fmt::format("{}: unknown key '{}'{}", path, item.key(), valid_names(item.key(), keys)));
  }
  MachineFigures machine;
  machine.source =
      path +
      (json.contains("source") && json["source"].is_string() ? ": " + json["source"].get<std::string>() : "");
  for (const auto& key : machine_keys) machine.*key.figure = positive(json, key.name, path);
  for (const auto& key : link_keys) {
    const auto link = json.find(key.name);
    if (link == json.end() || !link->is_object())
      throw Error(
          fmt::format("{}: {}: missing; valid: {{latency_seconds, bytes_per_second}}", path, key.name));
    const std::string where = path + ": " + key.name;
    machine.*
        key.link = {positive(*link, "latency_seconds", where), positive(*link, "bytes_per_second", where)};
  }
  return machine;
}

void write_machine(const std::string& path, const MachineFigures& machine) {
  nlohmann::ordered_json json;
  json["source"] = machine.source;
  for (const auto& key : machine_keys) json[key.name] = machine.*key.figure;
  for (const auto& key : link_keys) {
    json[key.name] = {{"latency_seconds", (machine.*key.link).latency},
                      {"bytes_per_second", (machine.*key.link).bandwidth}};
  }
  std::ofstream file(path, std::ios::trunc);
  file << json.dump(2) << "\n";
  file.close();
  if (!file) throw Error(fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
}

}  // namespace tessera
