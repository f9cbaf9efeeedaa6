// Runs an optimizer on numbers from standard input, for tests/trainer/test_optimizers_oracle.py.
// usage: tool_optimizer "name: adamw\nlearning_rate: 0.1" shapes=3x5,7 steps=N [working=bfloat16]
// [gradient=bfloat16] [aten=1] [clip=1.0] stdin: float32 initial values of all parameters, then the gradients
// of each step; stdout: masters, working copies, state.
#include <torch/torch.h>

#include <iostream>
#include <map>
#include <sstream>

#include "tests/tools/choice.h"
#include "tests/tools/device.h"
#include "trainer/gradients.h"
#include "trainer/optimizers/optimizers.h"

namespace {

using namespace tessera;
std::map<std::string, std::string> arguments;

double number(const std::string& key, double otherwise) {
  return arguments.contains(key) ? std::stod(arguments.at(key)) : otherwise;
}

at::ScalarType type(const std::string& key) {
  const std::string name = arguments.contains(key) ? arguments.at(key) : "float32";
  return name == "bfloat16" ? at::kBFloat16 : name == "float16" ? at::kHalf : at::kFloat;
}

at::Tensor read_tensor(const std::vector<int64_t>& shape, at::Device device) {
  at::Tensor tensor = torch::empty(shape);
  const auto bytes = static_cast<std::streamsize>(tensor.nbytes());
  std::cin.read(static_cast<char*>(tensor.data_ptr()), bytes);
  TORCH_CHECK(std::cin.gcount() == bytes, "standard input ends early");
  return tensor.to(device);
}

void write_tensor(const at::Tensor& tensor) {
  const at::Tensor wide = tensor.detach().to(at::kCPU, at::kFloat).contiguous();
  std::cout.write(static_cast<const char*>(wide.data_ptr()), static_cast<std::streamsize>(wide.nbytes()));
}

std::vector<std::vector<int64_t>> read_shapes() {
  std::vector<std::vector<int64_t>> shapes;
  std::stringstream list(arguments.at("shapes"));
  for (std::string text; std::getline(list, text, ',');) {
    auto& shape = shapes.emplace_back();
    std::stringstream sizes(text);
    for (std::string size; std::getline(sizes, size, 'x');) shape.push_back(std::stoll(size));
  }
  return shapes;
}

}  // namespace

int main(int argc, char** argv) {
  const at::Device device = test_device();
  for (int i = 2; i < argc; ++i) {
    const std::string text = argv[i];
    arguments[text.substr(0, text.find('='))] = text.substr(text.find('=') + 1);
  }
  const auto shapes = read_shapes();
  std::vector<Parameter> parameters;
  for (const auto& shape : shapes) {
    const at::Tensor master = read_tensor(shape, device);
    parameters.push_back({"p" + std::to_string(parameters.size()), master.to(type("working")), master});
  }
  const auto optimizer = make_optimizer(read_choice(argv[1], optimizer_choices()), parameters);
  optimizer->use_aten(number("aten", 0) != 0);
  for (int step = 0; step < static_cast<int>(number("steps", 1)); ++step) {
    std::vector<at::Tensor> gradients;
    for (const auto& shape : shapes) gradients.push_back(read_tensor(shape, device).to(type("gradient")));
    const auto scale = scale_and_clip(global_norm(gradients), {}, number("clip", 0));
    optimizer->step(optimizer->base_learning_rate(), gradients, scale.factor);
  }
  for (const auto& parameter : parameters) write_tensor(parameter.master);
  for (const auto& parameter : parameters) write_tensor(parameter.working);
  for (const auto& piece : optimizer->state()) write_tensor(piece.local);
}
