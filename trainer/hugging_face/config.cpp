#include "trainer/hugging_face/config.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "datasets/strict_json.h"
#include "recipes/error.h"
#include "trainer/hugging_face/heads.h"
#include "trainer/models/bert.h"
#include "trainer/models/gpt.h"
#include "trainer/models/models.h"

namespace tessera {
namespace {

using nlohmann::ordered_json;

struct ActivationName {
  const char* theirs;
  Activation ours;
};
constexpr std::array<ActivationName, 5> activations{{{"gelu", Activation::gelu_erf},
                                                     {"gelu_new", Activation::gelu_tanh},
                                                     {"gelu_pytorch_tanh", Activation::gelu_tanh},
                                                     {"gelu_fast", Activation::gelu_tanh},
                                                     {"relu", Activation::relu}}};

std::string activation_name(Activation ours) {
  for (const auto& each : activations) {
    if (each.ours == ours) return each.theirs;
  }
  throw std::logic_error("an activation without a name");
}

/// Takes values out of a config.json.
class ConfigReader {
 public:
  ConfigReader(const ordered_json& json, std::string where) : json_(json), where_(std::move(where)) {}

  [[noreturn]] void fail(const std::string& key, const std::string& what) const {
    throw Error(fmt::format("{}: {}: {}", where_, key, what));
  }

  const ordered_json* find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }

  int64_t count(const char* key, int64_t otherwise) const {
    const ordered_json* value = find(key);
    if (!value) return otherwise;
    constexpr int64_t most = int64_t(1) << 31;
    if (!value->is_number_integer() || *value < 1 || *value > most) {
      fail(key, fmt::format("{} is no whole number from 1 to {}", shown(*value), most));
    }
    return value->get<int64_t>();
  }

  double number(const char* key, double otherwise, double most = 1) const {
    const ordered_json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_number() || !(value->get<double>() >= 0 && value->get<double>() <= most)) {
      fail(key, fmt::format("{} is no number from 0 to {}", shown(*value), most));
    }
    return value->get<double>();
  }

  std::string text(const char* key) const {
    const ordered_json* value = find(key);
    if (!value) return "";
    if (!value->is_string()) fail(key, shown(*value) + " is no text");
    return value->get<std::string>();
  }

  Activation activation(const char* key, Activation otherwise) const {
    const std::string name = text(key);
    if (name.empty()) return otherwise;
    std::vector<std::string> names;
    for (const auto& each : activations) {
      if (name == each.theirs) return each.ours;
      names.emplace_back(each.theirs);
    }
    fail(key, fmt::format("'{}' is not implemented{}", name, valid_names(name, names)));
  }

  /// A choice that our model does not have, so that only one of its values can be read.
  void expect(const char* key, const ordered_json& only) const {
    const ordered_json* value = find(key);
    if (value && *value != only) {
      fail(key, fmt::format("{} is not implemented; valid: {}", shown(*value), only.dump()));
    }
  }

 private:
  const ordered_json& json_;
  std::string where_;
};

template <class Config>
Choice chosen(const char* family, const Config& config) {
  Choice choice(*model_choices().find(family));
  *choice.get_if<Config>() = config;
  return choice;
}

void check_heads(const ConfigReader& reader, const char* key, int64_t heads, int64_t hidden) {
  if (hidden % heads != 0)
    reader.fail(key, fmt::format("{} does not divide the hidden size {}", heads, hidden));
}

Choice read_bert(const ConfigReader& reader) {
  BertConfig config;
  config.num_layers = reader.count("num_hidden_layers", 12);
  config.hidden_size = reader.count("hidden_size", 768);
  config.num_heads = reader.count("num_attention_heads", 12);
  config.feed_forward_size = reader.count("intermediate_size", 3072);
  config.max_positions = reader.count("max_position_embeddings", 512);
  config.vocab_size = reader.count("vocab_size", 30522);
  config.type_vocab_size = reader.count("type_vocab_size", 2);
  config.dropout = reader.number("hidden_dropout_prob", 0.1);
  config.attention_dropout = reader.number("attention_probs_dropout_prob", 0.1);
  config.layer_norm_epsilon = reader.number("layer_norm_eps", 1e-12);
  config.initializer_range = reader.number("initializer_range", 0.02);
  config.activation = reader.activation("hidden_act", Activation::gelu_erf);
  reader.expect("position_embedding_type", "absolute");
  reader.expect("is_decoder", false);
  reader.expect("add_cross_attention", false);
  reader.expect("tie_word_embeddings", true);
  check_heads(reader, "num_attention_heads", config.num_heads, config.hidden_size);
  return chosen("bert", config);
}

/// The dropouts that our one key stands for.
double one_dropout(const ConfigReader& reader) {
  const double dropout = reader.number("resid_pdrop", 0.1);
  if (reader.number("embd_pdrop", 0.1) != dropout) {
    reader.fail("embd_pdrop", fmt::format("another than resid_pdrop {} is not implemented", dropout));
  }
  return dropout;
}

Choice read_gpt(const ConfigReader& reader, int64_t version) {
  GptConfig config;
  config.version = version;
  config.num_layers = reader.count("n_layer", 12);
  config.hidden_size = reader.count("n_embd", 768);
  config.num_heads = reader.count("n_head", 12);
  config.feed_forward_size =
      version == 2 ? reader.count("n_inner", 4 * config.hidden_size) : 4 * config.hidden_size;
  config.max_positions = reader.count("n_positions", version == 2 ? 1024 : 512);
  config.vocab_size = reader.count("vocab_size", version == 2 ? 50257 : 40478);
  config.dropout = one_dropout(reader);
  config.attention_dropout = reader.number("attn_pdrop", 0.1);
  config.layer_norm_epsilon = reader.number("layer_norm_epsilon", 1e-5);
  config.initializer_range = reader.number("initializer_range", 0.02);
  if (version == 2) {
    config.activation = reader.activation("activation_function", Activation::gelu_tanh);
    reader.expect("scale_attn_weights", true);
    reader.expect("scale_attn_by_inverse_layer_idx", false);
    reader.expect("add_cross_attention", false);
  } else if (reader.text("afn") != "gelu") {  // there it means the tanh form
    config.activation = reader.activation("afn", Activation::gelu_tanh);
  }
  reader.expect("tie_word_embeddings", true);
  check_heads(reader, "n_head", config.num_heads, config.hidden_size);
  return chosen("gpt", config);
}

ordered_json bert_config(const BertConfig& config, const ConfigSetting& setting) {
  return {{"architectures", {setting.next_sentence ? "BertForPreTraining" : "BertForMaskedLM"}},
          {"attention_probs_dropout_prob", config.attention_dropout},
          {"dtype", setting.dtype},
          {"hidden_act", activation_name(config.activation)},
          {"hidden_dropout_prob", config.dropout},
          {"hidden_size", config.hidden_size},
          {"initializer_range", config.initializer_range},
          {"intermediate_size", config.feed_forward_size},
          {"layer_norm_eps", config.layer_norm_epsilon},
          {"max_position_embeddings", config.max_positions},
          {"model_type", "bert"},
          {"num_attention_heads", config.num_heads},
          {"num_hidden_layers", config.num_layers},
          {"pad_token_id", std::max(0, setting.special.pad)},
          {"type_vocab_size", config.type_vocab_size},
          {"vocab_size", setting.vocab_size}};
}

ordered_json gpt_config(const GptConfig& config, const ConfigSetting& setting) {
  const bool second = config.version == 2;
  const int64_t wide = config.feed_forward_size > 0 ? config.feed_forward_size : 4 * config.hidden_size;
  if (!second && wide != 4 * config.hidden_size) {
    throw Error(fmt::format(
        "model.feed_forward_size: {} cannot be exported: Hugging Face's GPT-1 has 4 x hidden_size {} only",
        wide, config.hidden_size));
  }
  const std::string activation = activation_name(config.activation);
  ordered_json json{{"architectures", {second ? "GPT2LMHeadModel" : "OpenAIGPTLMHeadModel"}},
                    {"attn_pdrop", config.attention_dropout},
                    {"dtype", setting.dtype},
                    {"embd_pdrop", config.dropout},
                    {"initializer_range", config.initializer_range},
                    {"layer_norm_epsilon", config.layer_norm_epsilon},
                    {"model_type", second ? "gpt2" : "openai-gpt"},
                    {"n_embd", config.hidden_size},
                    {"n_head", config.num_heads},
                    {"n_layer", config.num_layers},
                    {"n_positions", config.max_positions},
                    {"resid_pdrop", config.dropout},
                    {"vocab_size", setting.vocab_size}};
  if (second) {
    json["activation_function"] = activation;
    json["n_inner"] = wide;
    const int begin = setting.special.begin >= 0 ? setting.special.begin : setting.special.end;
    json["bos_token_id"] = begin >= 0 ? ordered_json(begin) : ordered_json();
    json["eos_token_id"] = setting.special.end >= 0 ? ordered_json(setting.special.end) : ordered_json();
  } else {
    if (config.activation == Activation::gelu_erf) {
      throw Error("model.activation: gelu cannot be exported: in Hugging Face's GPT-1 it means gelu_tanh");
    }
    json["afn"] = config.activation == Activation::gelu_tanh ? "gelu" : activation;
  }
  return json;
}

/// What transformers needs to know where batches are padded, and what its dropout would be otherwise.
void write_gpt_head(ordered_json& json, const GptConfig& config, const ConfigSetting& setting) {
  write_head(json, setting.objective, config.version == 2 ? "GPT2" : "OpenAIGPT");
  const int pad = setting.special.pad >= 0 ? setting.special.pad : setting.special.end;
  json["pad_token_id"] = pad >= 0 ? ordered_json(pad) : ordered_json();
  if (setting.objective.name() == "token_classification") json["classifier_dropout"] = config.dropout;
}

}  // namespace

HuggingFaceModel read_hugging_face_config(const ordered_json& json, const std::string& where) {
  const ConfigReader reader(json, where);
  HuggingFaceModel found;
  const std::string type = reader.text("model_type");
  if (const ordered_json* names = reader.find("architectures")) {
    if (!names->is_array() || names->size() > 1 || (names->size() == 1 && !names->front().is_string())) {
      reader.fail("architectures", shown(*names) + " is no list of one name");
    }
    if (!names->empty()) found.architecture = names->front().get<std::string>();
  }
  found.objective = head_objective(found.architecture, json, where);
  if (type == "bert") {
    found.model = read_bert(reader);
  } else if (type == "gpt2" || type == "openai-gpt") {
    found.model = read_gpt(reader, type == "gpt2" ? 2 : 1);
  } else {
    reader.fail("model_type", (type.empty() ? "missing" : "'" + type + "' is not implemented") +
                                  valid_names(type, {"bert", "gpt2", "openai-gpt"}));
  }
  return found;
}

ordered_json hugging_face_config(const Choice& model, const ConfigSetting& setting) {
  ordered_json json;
  const bool task = has_task_head(setting.objective);
  if (const auto* bert = model.get_if<BertConfig>()) {
    json = bert_config(*bert, setting);
    if (task) write_head(json, setting.objective, "Bert");
  }
  if (const auto* gpt = model.get_if<GptConfig>()) {
    json = gpt_config(*gpt, setting);
    if (task) write_gpt_head(json, *gpt, setting);
  }
  if (!json.empty() && !setting.tied) json["tie_word_embeddings"] = false;
  if (!json.empty()) return json;
  throw std::logic_error("no config.json for models of the family " + model.name());
}

}  // namespace tessera
