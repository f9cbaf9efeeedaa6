#include "trainer/blocks/lora.h"

#include <torch/torch.h>

#include <algorithm>
#include <map>

#include "recipes/random.h"
#include "trainer/blocks/functions.h"
#include "trainer/blocks/layers.h"

namespace tessera {

Lora::Lora(const std::string& name, const LoraConfig& config)
    : config_(config), site_(hash_name(name + ".lora")) {}

void Lora::add_input(int64_t inputs) { a = register_parameter("a", unallocated({config_.rank, inputs})); }

void Lora::add_output(int64_t outputs) {
  b = register_parameter("b", unallocated({outputs, config_.rank}));
  if (config_.dora) magnitude = register_parameter("magnitude", unallocated({outputs}));
}

void Lora::add_table(int64_t rows, int64_t hidden_size) {
  a = register_parameter("a", unallocated({rows, config_.rank}));
  b = register_parameter("b", unallocated({hidden_size, config_.rank}));
}

namespace {

at::Tensor add_bias(const at::Tensor& y, const Linear& layer, Biases biases) {
  return biases == Biases::added && layer.bias.defined() ? y + layer.bias : y;
}

/// Where a layer stands, for a product that no kernel has as a whole.
struct Surroundings {
  std::function<DropoutSite(const Lora&)> site;
  std::function<at::Tensor(const at::Tensor& own)> whole;  // own rows to all rows
  const TensorSplit* divided = nullptr;                    // who divides the inputs
};

at::Tensor magnitude_factor(const Linear& layer, const Surroundings& around) {
  at::Tensor norms;
  {
    const at::NoGradGuard no_grad;  // a constant to backward, as the paper proposes (section 4.3)
    norms = row_norms(layer.weight, *layer.lora);
    if (around.divided) {
      norms = norms.square_();
      around.divided->ranks().all_reduce(norms);
      norms = norms.sqrt_();
    }
  }
  return (layer.lora->magnitude.to(norms.scalar_type()) / norms).to(layer.weight.scalar_type());
}

/// With a magnitude, y = m / ||W'|| W' x; dropout acts on all but the frozen product itself, as in PEFT.
at::Tensor one_product(const Linear& layer, const at::Tensor& x, const Surroundings& around, Biases biases) {
  at::Tensor y = ops::linear(around.whole(x), layer.weight);
  if (!layer.lora) return add_bias(y, layer, biases);
  const Lora& lora = *layer.lora;
  const DropoutSite site = around.site(lora.input());
  const at::Tensor hidden = ops::low_rank(x, lora.input().a, lora.config().scale, site);
  const at::Tensor addend = ops::linear(around.whole(hidden), lora.b);
  if (!lora.magnitude.defined()) return add_bias(y + addend, layer, biases);
  const at::Tensor factor = magnitude_factor(layer, around);
  if (site.active()) {
    const at::Tensor dropped = ops::linear(around.whole(ops::dropout(x, site)), layer.weight);
    y = y + (factor - 1) * dropped + factor * addend;
  } else {
    y = factor * (y + addend);
  }
  return add_bias(y, layer, biases);
}

bool has_magnitude(const Linear* layer) { return layer->lora && layer->lora->magnitude.defined(); }

std::vector<ops::LowRank> addends_of(const std::vector<const Linear*>& layers, const at::Tensor& x,
                                     const std::function<DropoutSite(const Lora&)>& site) {
  std::vector<ops::LowRank> addends;
  std::map<const Lora*, at::Tensor> hidden;  // of inputs that layers share
  for (size_t i = 0; i < layers.size(); ++i) {
    const Lora* lora = layers[i]->lora.get();
    if (!lora) continue;
    addends.resize(layers.size());
    at::Tensor& h = hidden[&lora->input()];
    if (!h.defined()) h = ops::low_rank(x, lora->input().a, lora->config().scale, site(lora->input()));
    addends[i] = {h, lora->b};
  }
  return addends;
}

/// A single layer whose rows are all here.
at::Tensor project_here(const Linear& layer, const at::Tensor& x, const Surroundings& around, Biases biases) {
  const at::Tensor bias = biases == Biases::added ? layer.bias : at::Tensor();
  if (!layer.lora) return ops::linear(x, layer.weight, bias);
  if (has_magnitude(&layer)) return one_product(layer, x, around, biases);
  const std::vector<at::Tensor> added = bias.defined() ? std::vector{bias} : std::vector<at::Tensor>();
  return ops::joined_linear(x, {layer.weight}, added, {}, addends_of({&layer}, x, around.site));
}

at::Tensor itself(const at::Tensor& x) { return x; }

}  // namespace

at::Tensor row_norms(const at::Tensor& weight, const Lora& lora) {
  const at::Tensor product = at::mm(lora.b.to(at::kFloat), lora.input().a.to(at::kFloat));
  return (weight.to(at::kFloat) + product * lora.config().scale).norm(2, /*dim=*/1);
}

at::Tensor project_into(const std::vector<const Linear*>& layers, const at::Tensor& x, const Context& context,
                        Biases biases) {
  const auto site = [&](const Lora& lora) { return lora.site(context); };
  if (std::any_of(layers.begin(), layers.end(), has_magnitude)) {
    const auto whole = [&](const at::Tensor& own) {
      return context.split ? context.split->gather(own, context.batch) : own;
    };
    std::vector<at::Tensor> parts;
    for (const Linear* layer : layers)
      parts.push_back(one_product(*layer, x, {site, whole, nullptr}, biases));
    return parts.size() == 1 ? parts.front() : at::cat(parts, 1);
  }
  std::vector<at::Tensor> weights, added;
  for (const Linear* layer : layers) {
    weights.push_back(layer->weight);
    if (biases == Biases::added && layer->bias.defined()) added.push_back(layer->bias);
  }
  return ops::joined_linear(x, weights, added, context.inside(), addends_of(layers, x, site));
}

at::Tensor project_out(const Linear& layer, const at::Tensor& x, const Context& context) {
  const auto site = [&](const Lora& lora) { return lora.site_inside(context, x.size(1)); };
  return project_here(layer, x, {site, itself, context.split}, Biases::left_out);
}

at::Tensor project(const Linear& layer, const at::Tensor& x, const Context& context) {
  const auto site = [&](const Lora& lora) { return lora.site(context); };
  return project_here(layer, x, {site, itself, nullptr}, Biases::added);
}

}  // namespace tessera
