// Speed of one of our kernels against the memory that it must move.
// usage: tool_kernel_bench NAME ROWS WIDTH DTYPE [--device cpu|cuda] [--repeat N]
// NAME: dropout | residual_norm | residual_norm_backward | activation | activation_backward | cross_entropy;
// DTYPE: fp32 | bf16 | fp16. GPT-2 124M at 16 x 1024 tokens: 16384 768 (activations 16384 3072, cross_entropy
// 16384 50257).
//
// Prints a JSON object: bytes that one run must read and write, by formula (each tensor once, scratch memory
// not), the median seconds of a run, GB/s, and their share of what a large copy on the device moves in the
// same process. Runs go in turn over copies of the data that together are larger than a GPU's cache.
#include <fmt/format.h>
#include <torch/torch.h>

#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "recipes/error.h"
#include "tests/tools/device_timing.h"
#include "trainer/device.h"
#include "trainer/kernels/kernels.h"

namespace {

using namespace tessera;

struct KernelSetting {
  std::string name;
  int64_t rows, width;
  std::string dtype;
  at::Device device = at::kCPU;
  int repeat = 20;

  at::ScalarType type() const {
    return dtype == "bf16" ? at::kBFloat16 : dtype == "fp16" ? at::kHalf : at::kFloat;
  }
  double element() const { return static_cast<double>(at::elementSize(type())); }
  /// Of one [rows, width] tensor.
  double bytes() const { return static_cast<double>(rows * width) * element(); }
  double row_bytes() const { return static_cast<double>(width) * element(); }
  at::Tensor random(at::IntArrayRef shape) const { return torch::randn(shape, device).to(type()); }
  at::Tensor matrix() const { return random({rows, width}); }
  at::Tensor vector() const { return random({width}); }
};

/// One set of data, and how to run the kernel on it; what run returns stays alive until its round is over.
using Run = std::function<std::vector<at::Tensor>()>;
struct Bench {
  double (*bytes)(const KernelSetting& setting);
  Run (*make)(const KernelSetting& setting);
};

DropoutSite site(const KernelSetting& setting) {
  DropoutSite dropout;
  dropout.key = 7;
  dropout.threshold = 6554;  // a tenth
  dropout.sequence = std::min<int64_t>(1024, setting.rows);
  dropout.samples = torch::arange((setting.rows + dropout.sequence - 1) / dropout.sequence,
                                  at::TensorOptions(setting.device).dtype(at::kLong));
  return dropout;
}

ResidualNormInput norm_input(const KernelSetting& setting) {
  return {.x = setting.matrix(),
          .bias = setting.vector(),
          .residual = setting.matrix(),
          .weight = setting.vector(),
          .shift = setting.vector(),
          .epsilon = 1e-5,
          .dropout = site(setting)};
}

Run dropout(const KernelSetting& setting) {
  return [x = setting.matrix(), where = site(setting)]() -> std::vector<at::Tensor> {
    return {kernels_for(x).dropout(x, where)};
  };
}

Run residual_norm(const KernelSetting& setting) {
  return [input = norm_input(setting)]() -> std::vector<at::Tensor> {
    const ResidualNormOutput output = kernels_for(input.x).residual_norm(input);
    return {output.sum, output.normed};
  };
}

Run residual_norm_backward(const KernelSetting& setting) {
  const ResidualNormInput input = norm_input(setting);
  const ResidualNormOutput output = kernels_for(input.x).residual_norm(input);
  return
      [input, output, of_sum = setting.matrix(), of_normed = setting.matrix()]() -> std::vector<at::Tensor> {
        const auto all = kernels_for(input.x).residual_norm_backward(input, output, of_sum, of_normed);
        return {all.residual, all.x, all.bias, all.weight, all.shift};
      };
}

Run activation(const KernelSetting& setting) {
  return [x = setting.matrix(), bias = setting.vector()]() -> std::vector<at::Tensor> {
    return {kernels_for(x).activation(x, bias, Activation::gelu_tanh)};
  };
}

Run activation_backward(const KernelSetting& setting) {
  return [gradient = setting.matrix(), x = setting.matrix(),
          bias = setting.vector()]() -> std::vector<at::Tensor> {
    const auto all = kernels_for(x).activation_backward(gradient, x, bias, Activation::gelu_tanh);
    return {all.x, all.bias};
  };
}

Run cross_entropy(const KernelSetting& setting) {
  const auto indices = at::TensorOptions(setting.device).dtype(at::kLong);
  // Overwritten by their gradient, which are logits as good as any for the next run.
  return [logits = setting.matrix(), labels = torch::randint(setting.width, {setting.rows},
                                                             indices)]() mutable -> std::vector<at::Tensor> {
    const CrossEntropy loss = kernels_for(logits).cross_entropy(logits, {}, labels);
    return {loss.sum, loss.correct};
  };
}

const std::map<std::string, Bench> benches = {
    {"dropout", {[](const KernelSetting& s) { return 2 * s.bytes(); }, dropout}},
    {"residual_norm",  // x, residual, bias, weight, shift; sum, normed, mean and rstd
     {[](const KernelSetting& s) {
        return 4 * s.bytes() + 3 * s.row_bytes() + 8 * static_cast<double>(s.rows);
      },
      residual_norm}},
    {"residual_norm_backward",  // two gradients, sum, mean, rstd, weight; two gradients, those of three
                                // vectors
     {[](const KernelSetting& s) {
        return 5 * s.bytes() + 4 * s.row_bytes() + 8 * static_cast<double>(s.rows);
      },
      residual_norm_backward}},
    {"activation", {[](const KernelSetting& s) { return 2 * s.bytes() + s.row_bytes(); }, activation}},
    {"activation_backward",
     {[](const KernelSetting& s) { return 3 * s.bytes() + 2 * s.row_bytes(); }, activation_backward}},
    {"cross_entropy",  // logits in and out, labels
     {[](const KernelSetting& s) { return 2 * s.bytes() + 8 * static_cast<double>(s.rows); }, cross_entropy}},
};

std::string known(const std::string& given, const std::vector<std::string>& valid) {
  if (std::find(valid.begin(), valid.end(), given) != valid.end()) return given;
  throw Error("unknown '" + given + "'" + valid_names(given, valid));
}

KernelSetting read(int argc, char** argv) {
  std::vector<std::string> names;
  for (const auto& [name, bench] : benches) names.push_back(name);
  if (argc < 5 || argc % 2 == 0)
    throw Error("usage: tool_kernel_bench NAME ROWS WIDTH DTYPE [--device cpu|cuda] [--repeat N]");
  KernelSetting setting{known(argv[1], names), std::stoll(argv[2]), std::stoll(argv[3]),
                        known(argv[4], {"fp32", "bf16", "fp16"})};
  for (int i = 5; i < argc; i += 2) {
    const std::string option = known(argv[i], {"--device", "--repeat"});
    if (option == "--device")
      setting.device = choose_device(read_device(argv[i + 1], option), /*local_rank=*/0);
    if (option == "--repeat") setting.repeat = std::stoi(argv[i + 1]);
  }
  return setting;
}

void measure(const KernelSetting& setting) {
  const at::NoGradGuard no_grad;
  const Bench& bench = benches.at(setting.name);
  const double bytes = bench.bytes(setting);
  constexpr double larger_than_caches = 256e6;
  const int sets =
      setting.device.is_cpu() ? 1 : static_cast<int>(std::clamp(larger_than_caches / bytes, 1.0, 64.0));
  std::vector<Run> runs;
  for (int i = 0; i < sets; ++i) runs.push_back(bench.make(setting));
  const Spread round = time_work(setting.device, setting.repeat, [&] {
    std::vector<std::vector<at::Tensor>> kept;
    for (const Run& each : runs) kept.push_back(each());
  });
  const double copy = copy_ceiling(setting.device), speed = bytes * sets / round.median;
  const nlohmann::ordered_json result = {
      {"kernel", setting.name},
      {"rows", setting.rows},
      {"width", setting.width},
      {"dtype", setting.dtype},
      {"device", setting.device.str()},
      {"device_name", name_of_device(setting.device)},
      {"repeat", setting.repeat},
      {"copies_of_data", sets},
      {"bytes", bytes},
      {"seconds",
       {{"median", round.median / sets}, {"least", round.least / sets}, {"most", round.most / sets}}},
      {"gb_per_second", speed / 1e9},
      {"copy_gb_per_second", copy / 1e9},
      {"share_of_copy", speed / copy}};
  fmt::print("{}\n", result.dump());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const KernelSetting setting = read(argc, argv);
    torch::manual_seed(0);
    measure(setting);
  } catch (const Error& error) {
    fmt::print(stderr, "tool_kernel_bench: {}\n", error.what());
    return 2;
  }
}
