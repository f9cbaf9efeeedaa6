#include "launch/commands.h"

namespace tessera {

std::function<int()> declare_prepare(CLI::App& app);
std::function<int()> declare_recipes(CLI::App& app);
std::function<int()> declare_train(CLI::App& app);
std::function<int()> declare_evaluate(CLI::App& app);
std::function<int()> declare_inspect(CLI::App& app);
std::function<int()> declare_validate(CLI::App& app);
std::function<int()> declare_generate(CLI::App& app);
std::function<int()> declare_import(CLI::App& app);
std::function<int()> declare_export(CLI::App& app);
std::function<int()> declare_doctor(CLI::App& app);

const std::vector<Command>& commands() {
  static const std::vector<Command> table = {
      {"prepare", "Make training data out of text",
       "tessera prepare data/debian-en/text --output data/debian-en --train-tokenizer wordpiece --vocab-size "
       "8192",
       declare_prepare},
      {"train", "Train or resume what a recipe describes",
       "mpirun -n 2 tessera train recipes/bert/pretrain-mini.yaml train.steps=500", declare_train},
      {"evaluate", "Measure a checkpoint on validation data", "tessera evaluate runs/bert-mini",
       declare_evaluate},
      {"inspect", "Show and verify what is in a checkpoint, a dataset or a run",
       "tessera inspect runs/bert-mini --verify", declare_inspect},
      {"validate", "Check a recipe and say what it comes to: batch, parameters, memory, messages, time",
       "tessera validate recipes/gpt/pretrain-1.5b.yaml --ranks 64 --hosts 8 --suggest --memory 141",
       declare_validate},
      {"recipes", "List, show and copy the recipes that ship with Tessera",
       "tessera recipes copy bert/pretrain-mini mine.yaml", declare_recipes},
      {"generate", "Continue texts, or fill their blanks, with a trained model",
       "tessera generate runs/gpt-mini --prompt 'This package provides' --top-k 40", declare_generate},
      {"import", "Make a checkpoint of a Hugging Face model",
       "tessera import models/bert-base-uncased runs/bert-base", declare_import},
      {"export", "Make a Hugging Face model of a checkpoint",
       "tessera export runs/bert-mini models/bert-mini", declare_export},
      {"doctor", "Say what this machine has, and measure what a plan's figures should be",
       "mpirun -n 2 tessera doctor --save machine.json", declare_doctor},
  };
  return table;
}

}  // namespace tessera
