// Speed of our models' training steps, in the terms of common Hugging Face benchmarks: forward, backward,
// clip, AdamW, dropout 0.1 (of attention too unless told otherwise), random tokens, 15 % of them predicted
// (BERT) or all (GPT). usage: tool_step_benchmark MODEL BATCH SEQUENCE DTYPE [--device cpu|cuda] [--steps N |
// --seconds S] [--threads N]
// [--attention-dropout P] [--deterministic 0|1] [--parts] [--json PATH]
// MODEL: a name of the table below; DTYPE: fp32 | bf16. --steps: how many are timed, after 3 that are not
// (default 20 on a GPU, 15 seconds' worth on the CPU). --deterministic: as train.deterministic (default 1).
// --parts: milliseconds of each part of a step.
//
// The last line is a JSON object, which --json also writes to a file; null stands where a device has no such
// thing. flops_per_token: 6 per weight that the token is multiplied by (the parameters without the tables of
// positions and segments; the table of tokens is the head's weight, and BERT's head reads the predicted
// tokens only), and 12 x layers x hidden x sequence for attention, causal or not, as PaLM (Chowdhery et al.,
// 2022, appendix B) and nanoGPT count. mfu_of_gemm: of the measured ceiling of products of the same type;
// mfu_of_sheet: of NVIDIA's 989 TFLOP/s. launches_per_step: kernels, copies and fills on the GPU; busy_share:
// their time over that of a step without profiler.
#include <fmt/format.h>
#include <torch/torch.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "recipes/error.h"
#include "tests/tools/device_profile.h"
#include "tests/tools/device_timing.h"
#include "trainer/determinism.h"
#include "trainer/device.h"
#include "trainer/gradients.h"
#include "trainer/models/bert.h"
#include "trainer/models/gpt.h"
#include "trainer/optimizers/adamw.h"

namespace {

using namespace tessera;
using nlohmann::ordered_json;

struct Shape {
  int64_t layers, hidden, heads;
};
const std::map<std::string, Shape> shapes = {
    {"bert-mini", {4, 256, 4}},     {"bert-base", {12, 768, 12}},  {"bert-large", {24, 1024, 16}},
    {"gpt2-mini", {4, 256, 4}},     {"gpt2", {12, 768, 12}},       {"gpt2-medium", {24, 1024, 16}},
    {"gpt2-large", {36, 1280, 20}}, {"gpt2-1.5b", {48, 1600, 25}},
};
constexpr double predicted_share = 0.15;  // of BERT's tokens
constexpr size_t warm_up = 3;

struct Setting {
  std::string model;
  int64_t batch, sequence;
  std::string dtype;
  int threads = 2;
  int64_t steps = 0;  // 0: as many as take `seconds`
  double seconds = 15, attention_dropout = 0.1;
  bool parts = false, deterministic = true;
  at::Device device = at::kCPU;
  std::string json = {};
  bool bert() const { return model.starts_with("bert"); }
  at::ScalarType type() const { return dtype == "bf16" ? at::kBFloat16 : at::kFloat; }
  int64_t tokens() const { return batch * sequence; }
};

std::string one_of(const std::string& given, const std::vector<std::string>& valid) {
  if (std::find(valid.begin(), valid.end(), given) != valid.end()) return given;
  throw Error("unknown '" + given + "'" + valid_names(given, valid));
}

Setting read(int argc, char** argv) {
  if (argc < 5)
    throw Error("usage: tool_step_benchmark MODEL BATCH SEQUENCE DTYPE [options, told in its source]");
  std::vector<std::string> models;
  for (const auto& [name, shape] : shapes) models.push_back(name);
  Setting setting{one_of(argv[1], models), std::stoll(argv[2]), std::stoll(argv[3]),
                  one_of(argv[4], {"fp32", "bf16"})};
  bool timed = false;
  for (int i = 5; i < argc; ++i) {
    const std::string option =
        one_of(argv[i], {"--device", "--steps", "--seconds", "--threads", "--attention-dropout",
                         "--deterministic", "--parts", "--json"});
    if (option == "--parts") {
      setting.parts = true;
      continue;
    }
    if (i + 1 == argc) throw Error(option + ": needs a value");
    const std::string value = argv[++i];
    timed = timed || option == "--steps" || option == "--seconds";
    if (option == "--device") setting.device = choose_device(read_device(value, option), /*local_rank=*/0);
    if (option == "--steps") setting.steps = std::stoll(value);
    if (option == "--seconds") setting.seconds = std::stod(value);
    if (option == "--threads") setting.threads = std::stoi(value);
    if (option == "--attention-dropout") setting.attention_dropout = std::stod(value);
    if (option == "--deterministic") setting.deterministic = one_of(value, {"0", "1"}) == "1";
    if (option == "--json") setting.json = value;
  }
  if (!timed && setting.device.is_cuda()) setting.steps = 20;
  return setting;
}

ModelPtr make(const Setting& setting) {
  const Shape& shape = shapes.at(setting.model);
  const auto sized = [&](auto config, int64_t vocab_size) {
    config.num_layers = shape.layers;
    config.hidden_size = shape.hidden;
    config.num_heads = shape.heads;
    config.feed_forward_size = 4 * shape.hidden;
    config.vocab_size = vocab_size;
    config.max_positions = std::max(config.max_positions, setting.sequence);
    config.attention_dropout = setting.attention_dropout;
    return config;
  };
  return setting.bert() ? make_bert(sized(BertConfig(), 30522)) : make_gpt(sized(GptConfig(), 50257));
}

Batch random_batch(const Setting& setting, int64_t vocab_size) {
  Batch batch;
  batch.tokens = torch::randint(5, vocab_size, {setting.batch, setting.sequence}, at::kLong);
  batch.samples = torch::arange(setting.batch);
  if (setting.bert()) {
    batch.label_positions = torch::rand({setting.tokens()}).lt(predicted_share).nonzero().view(-1);
    batch.labels = batch.tokens.view(-1).index_select(0, batch.label_positions);
    batch.segments = torch::zeros_like(batch.tokens);
    batch.next_sentence = torch::randint(0, 2, {setting.batch}, at::kLong);
  } else {
    batch.labels = torch::randint(5, vocab_size, {setting.tokens()}, at::kLong);
  }
  return batch;
}

/// A step, which marks on the clock where its forward, backward and optimizer begin.
class Step {
 public:
  explicit Step(const Setting& setting) : setting_(setting), model_(make(setting)) {
    model_->initialise(1);
    model_->to(setting.device);
    parameters_ = collect_parameters(*model_, setting.type());
    optimizer_ = std::make_unique<Adamw>(parameters_, AdamwOptions());
    batch_ = random_batch(setting, model_->vocab_size()).to(setting.device);
  }

  void run(DeviceClock& clock) {
    clock.mark();
    const at::Tensor hidden = model_->forward(batch_, {1, step_++, true});
    loss_ = model_->token_loss(hidden, batch_).sum / static_cast<double>(batch_.labels.size(0));
    if (setting_.bert()) {
      loss_ = loss_ + at::cross_entropy_loss(model_->pair_logits(hidden, batch_).to(at::kFloat),
                                             batch_.next_sentence);
    }
    clock.mark();
    loss_.backward();
    clock.mark();
    std::vector<at::Tensor> gradients;
    for (Parameter& parameter : parameters_) {
      gradients.push_back(parameter.working.grad());
      parameter.working.mutable_grad() = at::Tensor();
    }
    optimizer_->step(1e-4, gradients, scale_and_clip(global_norm(gradients), {}, 1.0).factor);
    loss_ = loss_.detach();
  }
  double loss() const { return loss_.item<double>(); }

  int64_t num_parameters() const {
    return count([](const std::string&) { return true; });
  }
  double flops_per_token() const {
    const auto named = [&](const std::string& part) {
      return static_cast<double>(count([&](const std::string& name) { return name.starts_with(part); }));
    };
    const double tables = named("embeddings.position") + named("embeddings.segment");
    const double head = named("embeddings.word");
    const double weights =
        static_cast<double>(num_parameters()) - tables - (setting_.bert() ? (1 - predicted_share) * head : 0);
    const Shape& shape = shapes.at(setting_.model);
    return 6 * weights + 12 * static_cast<double>(shape.layers * shape.hidden * setting_.sequence);
  }

 private:
  template <class Which>
  int64_t count(const Which& which) const {
    int64_t total = 0;
    for (const Parameter& parameter : parameters_) {
      if (which(parameter.name)) total += parameter.master.numel();
    }
    return total;
  }

  Setting setting_;
  ModelPtr model_;
  std::vector<Parameter> parameters_;
  std::unique_ptr<Adamw> optimizer_;
  Batch batch_;
  at::Tensor loss_;
  int64_t step_ = 0;
};

struct Timed {
  Spread seconds;
  double parts[3] = {};  // mean seconds of forward, backward, clip and optimizer
  int64_t steps = 0;
  double loss = 0;
};

Timed time_steps(const Setting& setting, Step& step) {
  DeviceClock first(setting.device);
  for (size_t i = 0; i < warm_up; ++i) step.run(first);
  first.mark();
  const double one = first.seconds(3 * (warm_up - 1), 3 * warm_up);
  Timed timed;
  timed.steps =
      setting.steps > 0 ? setting.steps : std::max<int64_t>(3, static_cast<int64_t>(setting.seconds / one));
  peak_memory_mib(setting.device);  // a GPU's is told since the last call
  DeviceClock clock(setting.device);
  for (int64_t i = 0; i < timed.steps; ++i) step.run(clock);
  clock.mark();
  std::vector<double> times;
  for (size_t i = 0; i < static_cast<size_t>(timed.steps); ++i) {
    times.push_back(clock.seconds(3 * i, 3 * i + 3));
    for (size_t part = 0; part < 3; ++part)
      timed.parts[part] += clock.seconds(3 * i + part, 3 * i + part + 1) / static_cast<double>(timed.steps);
  }
  timed.seconds = spread_of(times);
  timed.loss = step.loss();
  return timed;
}

/// The data sheet's dense FLOP/s in 16 bits of the cards that it is about.
std::optional<double> sheet_flops(const std::string& card, at::ScalarType type) {
  const bool sxm = card.find("H100 80GB HBM3") != std::string::npos || card.find("H200") != std::string::npos;
  return sxm && type != at::kFloat ? std::optional(989e12) : std::nullopt;
}

void add_profile(ordered_json& result, const Setting& setting, Step& step, double step_seconds) {
  constexpr int steps = 3;
  const auto all = profile(setting.device, [&] {
    DeviceClock unread(setting.device);
    for (int i = 0; i < steps; ++i) step.run(unread);
    step.loss();
  });
  double busy = 0;
  int64_t launches = 0;
  for (const ProfiledWork& work : all) {
    busy += work.seconds / steps;
    launches += work.count;
  }
  result["launches_per_step"] = nullptr;
  result["busy_share"] = nullptr;
  if (setting.device.is_cuda()) {
    result["launches_per_step"] = static_cast<double>(launches) / steps;
    result["busy_share"] = busy / step_seconds;
  }
  result["kernels"] = ordered_json::array();
  for (size_t i = 0; i < std::min<size_t>(10, all.size()); ++i) {
    result["kernels"].push_back({{"name", all[i].name},
                                 {"milliseconds_per_step", all[i].seconds / steps * 1e3},
                                 {"count_per_step", static_cast<double>(all[i].count) / steps}});
  }
}

ordered_json report(const Setting& setting, Step& step, const Timed& timed) {
  const double speed = static_cast<double>(setting.tokens()) / timed.seconds.median;
  const double flops = step.flops_per_token() * speed;
  const double peak = peak_memory_mib(setting.device) / 1024;
  const double ceiling = product_ceiling(setting.device, setting.type());
  const std::string card = name_of_device(setting.device);
  const std::optional<double> sheet = sheet_flops(card, setting.type());
  ordered_json result = {
      {"model", setting.model},
      {"batch", setting.batch},
      {"sequence", setting.sequence},
      {"dtype", setting.dtype},
      {"device", setting.device.str()},
      {"device_name", card},
      {"threads", setting.threads},
      {"attention_dropout", setting.attention_dropout},
      {"deterministic", setting.deterministic},
      {"steps", timed.steps},
      {"loss", timed.loss},
      {"seconds",
       {{"median", timed.seconds.median}, {"least", timed.seconds.least}, {"most", timed.seconds.most}}},
      {"tokens_per_second", speed},
      {"parameters", step.num_parameters()},
      {"flops_per_token", step.flops_per_token()},
      {"gemm_tflops", ceiling / 1e12},
      {"mfu_of_gemm", flops / ceiling},
      {"mfu_of_sheet", sheet ? ordered_json(flops / *sheet) : ordered_json()},
      {"peak_memory_gib", peak}};
  add_profile(result, setting, step, timed.seconds.median);
  return result;
}

void run(int argc, char** argv) {
  prepare_host_memory();
  // Before anything asks for a generator: that would hide CUDA from this process.
  const Setting setting = read(argc, argv);
  if (setting.device.is_cuda()) at::globalContext().setAllowTF32CuBLAS(false);
  TrainSection train;
  train.deterministic = setting.deterministic;
  set_determinism(train, setting.device);
  at::set_num_threads(setting.threads);
  torch::manual_seed(0);
  Step step(setting);
  const Timed timed = time_steps(setting, step);
  const double tokens = static_cast<double>(setting.tokens());
  const ordered_json result = report(setting, step, timed);
  fmt::print(
      "{} params {:.1f}M {} tessera {} threads {} b{} s{}: {:.0f} tok/s median, best {:.0f}, {:.1f} ms/step "
      "over {} "
      "steps, peak {:.0f} MiB\n",
      setting.model, static_cast<double>(step.num_parameters()) / 1e6, setting.dtype, setting.device.str(),
      setting.threads, setting.batch, setting.sequence, tokens / timed.seconds.median,
      tokens / timed.seconds.least, timed.seconds.median * 1e3, timed.steps,
      result["peak_memory_gib"].get<double>() * 1024);
  if (setting.parts) {
    fmt::print("forward {:.1f} ms, backward {:.1f} ms, clip and optimizer {:.1f} ms\n", timed.parts[0] * 1e3,
               timed.parts[1] * 1e3, timed.parts[2] * 1e3);
  }
  if (!setting.json.empty()) std::ofstream(setting.json) << result.dump(2) << "\n";
  fmt::print("{}\n", result.dump());
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc, argv);
  } catch (const tessera::Error& error) {
    fmt::print(stderr, "tool_step_benchmark: {}\n", error.what());
    return 2;
  }
}
