// Training-step throughput of our models, in the terms of common Hugging Face benchmarks: forward, backward,
// clip, fused AdamW, dropout 0.1 (of attention too unless told otherwise), random tokens, 15 % of them
// predicted (BERT). usage: tool_step_benchmark MODEL BATCH SEQUENCE DTYPE [--threads N] [--seconds S]
// [--attention-dropout P] [--device cpu|cuda] [--parts] MODEL: bert-base | bert-mini | gpt2 |
// gpt2-mini; DTYPE: fp32 | bf16. --parts: milliseconds of each part of a step.
#include <sys/resource.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "parallel/plugin.h"
#include "trainer/device.h"
#include "trainer/gradients.h"
#include "trainer/models/bert.h"
#include "trainer/models/gpt.h"
#include "trainer/optimizers/adamw.h"

namespace {

using namespace tessera;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Setting {
  std::string model;
  int64_t batch, sequence;
  std::string dtype;
  int threads = 2;
  double seconds = 15, attention_dropout = 0.1;
  bool parts = false;
  at::Device device = at::kCPU;
  bool bert() const { return model.starts_with("bert"); }
};

Setting read(int argc, char** argv) {
  TORCH_CHECK(argc >= 5,
              "usage: tool_step_benchmark MODEL BATCH SEQUENCE DTYPE [--threads N] [--seconds S] "
              "[--attention-dropout P] [--device cpu|cuda] [--parts]");
  Setting setting{argv[1], std::stoll(argv[2]), std::stoll(argv[3]), argv[4]};
  for (int i = 5; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--threads") setting.threads = std::stoi(argv[++i]);
    if (argument == "--seconds") setting.seconds = std::stod(argv[++i]);
    if (argument == "--attention-dropout") setting.attention_dropout = std::stod(argv[++i]);
    if (argument == "--device" && argv[++i] == std::string("cuda")) setting.device = at::Device(at::kCUDA, 0);
    if (argument == "--parts") setting.parts = true;
  }
  return setting;
}

ModelPtr make(const Setting& setting) {
  const bool mini = setting.model.ends_with("mini");
  const auto sized = [&](auto config, int64_t vocab_size) {
    config.num_layers = mini ? 4 : 12;
    config.hidden_size = mini ? 256 : 768;
    config.num_heads = mini ? 4 : 12;
    config.feed_forward_size = 4 * config.hidden_size;
    config.vocab_size = vocab_size;
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
    batch.label_positions = torch::rand({batch.tokens.numel()}).lt(0.15).nonzero().view(-1);
    batch.labels = batch.tokens.view(-1).index_select(0, batch.label_positions);
    batch.segments = torch::zeros_like(batch.tokens);
    batch.next_sentence = torch::randint(0, 2, {setting.batch}, at::kLong);
  } else {
    const at::Tensor all = torch::arange(batch.tokens.numel()).view({setting.batch, -1});
    batch.label_positions = all.slice(1, 0, setting.sequence - 1).reshape(-1);
    batch.labels = batch.tokens.slice(1, 1).reshape(-1);
  }
  return batch;
}

class Step {
 public:
  explicit Step(const Setting& setting) : setting_(setting), model_(make(setting)) {
    model_->initialise(1);
    model_->to(setting.device);
    parameters_ = collect_parameters(*model_, setting.dtype == "bf16" ? at::kBFloat16 : at::kFloat);
    optimizer_ = std::make_unique<Adamw>(parameters_, AdamwOptions());
    batch_ = random_batch(setting, model_->vocab_size()).to(setting.device);
  }

  void run(double* parts) {
    const double start = now();
    const at::Tensor hidden = model_->forward(batch_, {1, step_++, true});
    at::Tensor loss = model_->token_loss(hidden, batch_).sum / static_cast<double>(batch_.labels.size(0));
    if (setting_.bert()) {
      loss = loss +
             at::cross_entropy_loss(model_->pair_logits(hidden, batch_).to(at::kFloat), batch_.next_sentence);
    }
    const double forward = now();
    loss.backward();
    const double backward = now();
    std::vector<at::Tensor> gradients;
    for (Parameter& parameter : parameters_) {
      gradients.push_back(parameter.working.grad());
      parameter.working.mutable_grad() = at::Tensor();
    }
    optimizer_->step(1e-4, gradients, scale_and_clip(global_norm(gradients), {}, 1.0).factor);
    if (setting_.device.is_cuda()) loss.item();  // the GPU has done what it was told
    parts[0] += forward - start;
    parts[1] += backward - forward;
    parts[2] += now() - backward;
  }
  double num_parameters() const {
    double count = 0;
    for (const Parameter& parameter : parameters_) count += static_cast<double>(parameter.master.numel());
    return count;
  }

 private:
  Setting setting_;
  ModelPtr model_;
  std::vector<Parameter> parameters_;
  std::unique_ptr<Adamw> optimizer_;
  Batch batch_;
  int64_t step_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  const Setting setting = read(argc, argv);
  prepare_host_memory();
  if (setting.device.is_cuda()) gpu_plugin();
  at::set_num_threads(setting.threads);
  torch::manual_seed(0);
  Step step(setting);
  double parts[3] = {};
  for (int i = 0; i < 3; ++i) step.run(parts);
  std::fill_n(parts, 3, 0.0);
  std::vector<double> times;
  for (const double end = now() + setting.seconds; now() < end || times.size() < 3;) {
    const double start = now();
    step.run(parts);
    times.push_back(now() - start);
  }
  std::sort(times.begin(), times.end());
  const double median = times[times.size() / 2],
               tokens = static_cast<double>(setting.batch * setting.sequence);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::printf(
      "%s params %.1fM %s tessera threads %d b%ld s%ld: %.0f tok/s median, best %.0f, %.0f ms/step, peak %ld "
      "MB\n",
      setting.model.c_str(), step.num_parameters() / 1e6, setting.dtype.c_str(), setting.threads,
      setting.batch, setting.sequence, tokens / median, tokens / times.front(), median * 1e3,
      usage.ru_maxrss / 1024);
  if (!setting.parts) return 0;
  const double steps = static_cast<double>(times.size()) / 1e3;
  std::printf("forward %.1f ms, backward %.1f ms, clip and optimizer %.1f ms\n", parts[0] / steps,
              parts[1] / steps, parts[2] / steps);
}
