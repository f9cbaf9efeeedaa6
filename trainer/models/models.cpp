#include "trainer/models/models.h"

#include <fmt/format.h>

#include <functional>

#include "recipes/error.h"
#include "trainer/models/bert.h"
#include "trainer/models/gpt.h"

namespace tessera {
namespace {

template <class Config>
Config sized(const Choice& choice, const ModelSetting& setting) {
  Config config = choice.as<Config>();
  if (config.vocab_size == 0) config.vocab_size = setting.vocab_size;
  if (config.vocab_size < setting.vocab_size) {
    throw Error(fmt::format(
        "model.vocab_size: {} is less than the tokenizer's {} tokens; valid: 0 (as many), or more",
        config.vocab_size, setting.vocab_size));
  }
  return config;
}

// A new family is one file and one entry here.
const Registry<ModelPtr, const ModelSetting&>& models() {
  static const Registry<ModelPtr, const ModelSetting&> registry(
      "family", {
                    {choice<BertConfig>("bert", "encoder (Devlin et al., 2018)"),
                     [](const Choice& chosen, const ModelSetting& setting) {
                       return make_bert(sized<BertConfig>(chosen, setting), setting.heads);
                     }},
                    {choice<GptConfig>("gpt", "decoder: GPT-1 and GPT-2 (Radford et al., 2018, 2019)"),
                     [](const Choice& chosen, const ModelSetting& setting) {
                       return make_gpt(sized<GptConfig>(chosen, setting), setting.heads);
                     }},
                });
  return registry;
}

}  // namespace

const ChoiceTable& model_choices() { return models().choices(); }

ModelPtr make_model(const Choice& choice, const ModelSetting& setting) {
  return models().make(choice, setting);
}

}  // namespace tessera
