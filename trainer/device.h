#pragma once
#include <c10/core/Device.h>

#include <optional>
#include <string>

#include "parallel/plugin.h"
#include "recipes/sections.h"

namespace tessera {

/// The device that somebody asks for; of cuda without a number the GPU of the local rank.
struct DeviceWish {
  DeviceChoice choice = DeviceChoice::automatic;
  std::optional<int> number = {};
};
/// "auto", "cpu", "cuda" or "cuda:N". Errors: Error that begins with `option`, with what is valid.
DeviceWish read_device(const std::string& text, const std::string& option);

/// That device, made the current one: automatic takes a GPU where there is one. Errors: Error where a GPU is
/// asked for and there is none, or none of that number.
at::Device choose_device(const DeviceWish& wish, int local_rank);
/// The same of this plug-in's GPUs.
at::Device choose_gpu(const DeviceWish& wish, int local_rank, const GpuPlugin& plugin);

/// What to tell once at the start where automatic left this machine's GPU unused: why, and what mends it; ""
/// where there is nothing to tell.
std::string device_notice(const DeviceWish& wish);

/// Makes the C library keep the memory of freed tensors for the next ones, and the kernel give it in large
/// pages: fresh pages cost more than filling them (5 % of a small model's step, 0.1 s of start-up). Called
/// before there are threads that compute.
void prepare_host_memory();

/// Largest memory of this process so far: resident on the CPU, in tensors on a GPU; MiB.
double peak_memory_mib(at::Device device);

}  // namespace tessera
